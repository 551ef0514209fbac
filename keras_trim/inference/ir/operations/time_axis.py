"""Time steps as samples, for layers that are applied to each step by itself."""

import dataclasses

from keras_trim.inference.ir.operations.base import Operation


@dataclasses.dataclass
class JoinTime(Operation):
    """(batch, time, ...) to (batch * time, ...)."""


@dataclasses.dataclass
class SplitTime(Operation):
    """(batch * time, ...) to (batch, time, ...); a second input tells the batch and time."""

    arity = (2, 2)
