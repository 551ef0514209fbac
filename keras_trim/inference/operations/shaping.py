"""Operations that move values and compute nothing."""

import dataclasses
import math

import numpy as np

from keras_trim.inference.operations.base import (
    Operation,
    require,
    require_integers,
    require_weights,
)
from keras_trim.inference.tensors import Place, Tensor


@dataclasses.dataclass
class Reshape(Operation):
    """Another shape per sample; one axis may be -1.

    Args:
        shape: Tuple of integers, the batch axis not counted.
    """

    shape: tuple
    takes_integers = True

    def check(self):
        require_integers(self.shape, None, -1)

    def lower(self, builder, x):
        size = math.prod(x.shape[1:])
        known = math.prod(n for n in self.shape if n != -1)
        shape = tuple(size // max(known, 1) if n == -1 else n for n in self.shape)
        require(math.prod(shape) == size, f"{x.shape[1:]} cannot become {self.shape!r:.100}")
        keeps_planes = x.layout == "planes" and len(shape) > 1 and shape[-1] == x.channels
        x = x if keeps_planes else builder.rows(x)
        y = Tensor((x.batch, *shape), x.layout, x.dtype)
        y.lie_in(x, 0)
        return y


@dataclasses.dataclass
class Concatenate(Operation):
    """Tensors behind one another along an axis.

    Args:
        axis: Integer, not negative.
    """

    axis: int
    takes_integers = True

    def check(self):
        require_integers((self.axis,), 1, 0)

    def lower(self, builder, *inputs):
        require(inputs, "nothing to join")
        require(len({x.dtype for x in inputs}) == 1, "floats and integers do not join")
        others = {(*x.shape[: self.axis], *x.shape[self.axis + 1 :]) for x in inputs}
        require(
            len(others) == 1 and all(self.axis < len(x.shape) for x in inputs),
            "shapes that do not join",
        )
        shape = list(inputs[0].shape)
        shape[self.axis] = sum(x.shape[self.axis] for x in inputs)
        if self.axis == len(shape) - 1 and len(shape) > 2:
            y = Tensor(shape, "planes", inputs[0].dtype)
            start = 0
            for x in map(builder.planes, inputs):
                # Whole planes, one for each channel, lie behind one another. Those of a single
                # image can be made there in the first place, if they are no part of another tensor;
                # or y lies behind the other parts of that.
                if x.size and x.batch == 1 and x.base is x:
                    x.lie_in(y, start)
                elif x.size and not (x.batch == 1 and start == 0 and x.continue_as(y)):
                    builder.emit(
                        "copy",
                        [
                            x, Place(y, start), x.batch, x.sample_size, y.sample_size,
                            x.channels, x.plane, x.plane, y.plane,
                        ],
                    )  # fmt: skip
                start += x.channels * x.plane
            return y
        y = Tensor(shape, "rows", inputs[0].dtype)
        outer = int(np.prod(shape[: self.axis]))
        inner = int(np.prod(shape[self.axis :]))
        start = 0
        for x in map(builder.rows, inputs):
            width = x.size // max(outer, 1)
            if x.size:
                builder.emit("copy", [x, Place(y, start), 1, 0, 0, outer, width, width, inner])
            start += width
        return y


@dataclasses.dataclass
class Embedding(Operation):
    """y = table[x].

    Args:
        table: Array, float32, (length, width).
    """

    table: np.ndarray
    takes_integers = True
    gives = "float32"

    def check(self):
        require_weights(self.table, None, None)

    def lower(self, builder, x):
        x = builder.rows(x)
        if x.dtype != "int32":
            indices = Tensor(x.shape, "rows", "int32")
            builder.host(lambda a, out: np.copyto(out, a, casting="unsafe"), [x], [indices])
            x = indices
        length, width = self.table.shape
        y = Tensor((*x.shape, width), "rows")
        if y.size == 0:
            return y
        builder.emit("gather", [builder.constant(self.table), length, width, x.size, y, x])
        return y
