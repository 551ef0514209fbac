"""Folds time steps into samples and back, for layers that apply to each step separately."""

from keras_trim.inference.ir.operations.time_axis import JoinTime, SplitTime
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import COPY
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.program.tensors import Tensor


def _copy(builder, x, shape):
    x = builder.to_nhwc(x)
    y = Tensor(shape, "NHWC", x.dtype)
    if x.size:
        builder.emit(
            COPY, x=x, y=y, batch=1, x_sample=0, y_sample=0, rows=1, columns=x.size, x_row=0,
            y_row=0,
        )  # fmt: skip
    return y


@lowers(JoinTime)
def _lower_join_time(op, builder, x):
    require(len(x.shape) >= 2, "samples without time")
    return _copy(builder, x, (x.shape[0] * x.shape[1], *x.shape[2:]))


@lowers(SplitTime)
def _lower_split_time(op, builder, x, like):
    batch_and_time = like.shape[:2]
    require(
        len(batch_and_time) == 2 and batch_and_time[0] * batch_and_time[1] == x.shape[0],
        "time steps that do not divide the samples",
    )
    return _copy(builder, x, (*batch_and_time, *x.shape[1:]))
