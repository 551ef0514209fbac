"""Time steps as samples, for layers that are applied to each step by itself."""

import dataclasses

from keras_trim.inference.operations.base import Operation, require
from keras_trim.inference.tensors import Tensor


def _copy(builder, x, shape):
    x = builder.rows(x)
    y = Tensor(shape, "rows", x.dtype)
    if x.size:
        builder.emit("copy", [x, y, 1, 0, 0, 1, x.size, 0, 0])
    return y


@dataclasses.dataclass
class JoinTime(Operation):
    """(batch, time, ...) to (batch * time, ...)."""

    def lower(self, builder, x):
        require(len(x.shape) >= 2, "samples without time")
        return _copy(builder, x, (x.shape[0] * x.shape[1], *x.shape[2:]))


@dataclasses.dataclass
class SplitTime(Operation):
    """(batch * time, ...) to (batch, time, ...); a second input tells the batch and time."""

    def lower(self, builder, x, like):
        batch_and_time = like.shape[:2]
        require(
            len(batch_and_time) == 2 and batch_and_time[0] * batch_and_time[1] == x.shape[0],
            "time steps that do not divide the samples",
        )
        return _copy(builder, x, (*batch_and_time, *x.shape[1:]))
