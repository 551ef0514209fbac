"""Operations that move values and compute nothing."""

import dataclasses

import numpy as np

from keras_trim.inference.operations.base import (
    Operation,
    require,
    require_integers,
    require_number,
    require_weights,
)
from keras_trim.inference.plan import Place, Tensor


@dataclasses.dataclass
class Reshape(Operation):
    """Another shape per sample; one axis may be -1.

    Args:
        shape: Tuple of integers, the batch axis not counted.
    """

    shape: tuple

    def check(self):
        require_integers(self.shape, None, -1)

    def lower(self, builder, x):
        size = int(np.prod(x.shape[1:]))
        known = int(np.prod([n for n in self.shape if n != -1]))
        shape = tuple(size // known if n == -1 else n for n in self.shape)
        require(int(np.prod(shape)) == size, f"{x.shape[1:]} cannot become {self.shape}")
        x = builder.rows(x)
        y = Tensor((x.batch, *shape), "rows", x.dtype)
        builder.emit("copy", [x, y, 1, 0, 0, 1, x.size, 0, 0])
        return y


@dataclasses.dataclass
class Permute(Operation):
    """Axes in another order, the batch axis (0) being the first.

    Args:
        axes: Tuple of integers.
    """

    axes: tuple

    def check(self):
        require_integers(self.axes, None, 0)
        require(sorted(self.axes) == list(range(len(self.axes))), "not an order of axes")

    def lower(self, builder, x):
        require(len(x.shape) == len(self.axes), "a permutation of other axes")
        y = Tensor([x.shape[axis] for axis in self.axes], "rows", x.dtype)
        axes = self.axes
        builder.host(lambda a, out: np.copyto(out, a.transpose(axes)), [x], [y])
        return y


@dataclasses.dataclass
class Concatenate(Operation):
    """Tensors behind one another along an axis.

    Args:
        axis: Integer, not negative.
    """

    axis: int

    def check(self):
        require_integers((self.axis,), 1, 0)

    def lower(self, builder, *inputs):
        others = {(*x.shape[: self.axis], *x.shape[self.axis + 1 :]) for x in inputs}
        require(len(others) == 1 and self.axis < len(inputs[0].shape), "shapes that do not join")
        shape = list(inputs[0].shape)
        shape[self.axis] = sum(x.shape[self.axis] for x in inputs)
        if self.axis == len(shape) - 1 and len(shape) > 2:
            y = Tensor(shape, "planes")
            start = 0
            for x in map(builder.planes, inputs):
                if x.size:
                    # Whole planes, one for each channel, lie behind one another.
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
class Pad(Operation):
    """Constant values around, or parts cut off, along the axes between batch and channels.

    Args:
        amounts: Tuple of pairs of integers, one per axis; negative ones cut off.
        value: Float.
    """

    amounts: tuple
    value: float = 0.0

    def check(self):
        for pair in self.amounts:
            require_integers(pair, 2, -(1 << 24))
        require_number(self.value)

    def lower(self, builder, x):
        require(len(x.shape) == len(self.amounts) + 2, "padding of other axes")
        sizes = [
            n + before + after
            for n, (before, after) in zip(x.shape[1:-1], self.amounts, strict=True)
        ]
        y = Tensor((x.batch, *sizes, x.channels), "rows")
        cut = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in self._axes(x))
        into = tuple(
            slice(max(b, 0), size - max(a, 0))
            for size, (b, a) in zip(sizes, self.amounts, strict=True)
        )

        def pad(a, out):
            out[...] = self.value
            out[(slice(None), *into)] = a[(slice(None), *cut)]

        builder.host(pad, [x], [y])
        return y

    def _axes(self, x):
        return zip(x.shape[1:-1], self.amounts, strict=True)


@dataclasses.dataclass
class Repeat(Operation):
    """Each pixel several times along the axes between batch and channels (nearest upsampling).

    Args:
        times: Tuple of integers.
    """

    times: tuple

    def check(self):
        require_integers(self.times, None, 1)

    def lower(self, builder, x):
        require(len(x.shape) == len(self.times) + 2, "repeats of other axes")
        sizes = [n * times for n, times in zip(x.shape[1:-1], self.times, strict=True)]
        y = Tensor((x.batch, *sizes, x.channels), "rows")

        def repeat(a, out):
            for axis, times in enumerate(self.times, start=1):
                a = a.repeat(times, axis)
            np.copyto(out, a)

        builder.host(repeat, [x], [y])
        return y


@dataclasses.dataclass
class Embedding(Operation):
    """y = table[x].

    Args:
        table: Array, float32, (length, width).
    """

    table: np.ndarray

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
        builder.emit("gather", [builder.constant(self.table), length, width, x.size, y, x])
        return y
