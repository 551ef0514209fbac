"""Operations that only move values."""

import math

import numpy as np

from keras_trim.inference.ir.operations.shaping import Concatenate, Embedding, Reshape
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import COPY, GATHER
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.program.tensors import Place, Tensor


@lowers(Reshape)
def _lower_reshape(op, builder, x):
    size = math.prod(x.shape[1:])
    known = math.prod(n for n in op.shape if n != -1)
    shape = tuple(size // max(known, 1) if n == -1 else n for n in op.shape)
    require(math.prod(shape) == size, f"{x.shape[1:]} cannot become {op.shape!r:.100}")
    keeps_planes = x.layout == "NCHW" and len(shape) > 1 and shape[-1] == x.channels
    x = x if keeps_planes else builder.to_nhwc(x)
    y = Tensor((x.batch, *shape), x.layout, x.dtype)
    y.lie_in(x, 0)
    return y


@lowers(Concatenate)
def _lower_concatenate(op, builder, *inputs):
    require(inputs, "nothing to join")
    require(len({x.dtype for x in inputs}) == 1, "floats and integers do not join")
    others = {(*x.shape[: op.axis], *x.shape[op.axis + 1 :]) for x in inputs}
    require(
        len(others) == 1 and all(op.axis < len(x.shape) for x in inputs),
        "shapes that do not join",
    )
    shape = list(inputs[0].shape)
    shape[op.axis] = sum(x.shape[op.axis] for x in inputs)
    if op.axis == len(shape) - 1 and len(shape) > 2:
        y = Tensor(shape, "NCHW", inputs[0].dtype)
        start = 0
        for x in map(builder.to_nchw, inputs):
            # Planes, one per channel, follow one another. Those of a single image can be computed
            # right in y, unless another tensor holds or extends them. If another one holds them, y
            # may be able to extend that.
            if x.size and x.batch == 1 and x.can_lie_elsewhere:
                x.lie_in(y, start)
            elif x.size and not (x.batch == 1 and start == 0 and x.continue_as(y)):
                builder.emit(
                    COPY, x=x, y=Place(y, start), batch=x.batch, x_sample=x.sample_size,
                    y_sample=y.sample_size, rows=x.channels, columns=x.plane, x_row=x.plane,
                    y_row=y.plane,
                )  # fmt: skip
            start += x.channels * x.plane
        return y
    y = Tensor(shape, "NHWC", inputs[0].dtype)
    outer = int(np.prod(shape[: op.axis]))
    inner = int(np.prod(shape[op.axis :]))
    start = 0
    for x in map(builder.to_nhwc, inputs):
        width = x.size // max(outer, 1)
        if x.size:
            builder.emit(
                COPY, x=x, y=Place(y, start), batch=1, x_sample=0, y_sample=0, rows=outer,
                columns=width, x_row=width, y_row=inner,
            )  # fmt: skip
        start += width
    return y


@lowers(Embedding)
def _lower_embedding(op, builder, x):
    x = builder.to_nhwc(x)
    if x.dtype != "int32":
        indices = Tensor(x.shape, "NHWC", "int32")
        builder.host(lambda a, out: np.copyto(out, a, casting="unsafe"), [x], [indices])
        x = indices
    length, width = op.table.shape
    y = Tensor((*x.shape, width), "NHWC")
    if y.size == 0:
        return y
    builder.emit(
        GATHER, table=builder.constant(op.table), length=length, width=width, size=x.size, y=y, x=x
    )
    return y
