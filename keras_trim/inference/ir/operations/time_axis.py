"""Turns time steps into samples and back, for layers that run on each step separately."""

import dataclasses

from keras_trim.inference.ir.operations.base import Operation


@dataclasses.dataclass
class JoinTime(Operation):
    """(batch, time, ...) to (batch * time, ...)."""


@dataclasses.dataclass
class SplitTime(Operation):
    """(batch * time, ...) to (batch, time, ...), with the sizes taken from a second input."""

    arity = (2, 2)
