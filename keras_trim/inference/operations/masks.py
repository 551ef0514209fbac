"""Masks of time steps, int32 numbers that are 0 where a step is to be skipped."""

import dataclasses

import numpy as np

from keras_trim.inference.operations.base import Operation
from keras_trim.inference.plan import Tensor


@dataclasses.dataclass
class NotEqual(Operation):
    """mask = x != value.

    Args:
        value: Integer or float.
    """

    value: float

    def lower(self, builder, x):
        mask = Tensor(x.shape, "rows", "int32")
        builder.host(lambda a, out: np.copyto(out, a != self.value), [x], [mask])
        return mask


@dataclasses.dataclass
class AnyOfLast(Operation):
    """Whether any element along the last axis is not zero."""

    def lower(self, builder, x):
        y = Tensor(x.shape[:-1], "rows", "int32")
        builder.host(lambda a, out: np.copyto(out, np.any(a, axis=-1)), [x], [y])
        return y


@dataclasses.dataclass
class MaskValue(Operation):
    """Steps all of whose features are `value` become zeros; outputs are these steps and the mask.

    Args:
        value: Float.
    """

    value: float

    def lower(self, builder, x):
        y = Tensor(x.shape, "rows")
        mask = Tensor(x.shape[:-1], "rows", "int32")

        def compute(a, out, kept):
            np.copyto(kept, np.any(a != self.value, axis=-1))
            np.copyto(out, np.where(kept[..., None], a, 0))

        builder.host(compute, [x], [y, mask])
        return [y, mask]
