"""Time steps as samples, for layers that are applied to each step by itself."""

import dataclasses

from keras_trim.inference.operations.base import Operation
from keras_trim.inference.plan import Tensor


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
        return _copy(builder, x, (x.shape[0] * x.shape[1], *x.shape[2:]))


@dataclasses.dataclass
class SplitTime(Operation):
    """(batch * time, ...) to (batch, time, ...); a second input tells the batch and time."""

    def lower(self, builder, x, like):
        return _copy(builder, x, (*like.shape[:2], *x.shape[1:]))
