"""Clipping of outputs to bounds, as kernels do it."""

import dataclasses

from keras_trim.inference.ir.operations.base import INFINITY
from keras_trim.inference.kernels.llvm import CLIP


@dataclasses.dataclass
class Clip:
    """Bounds that the output is clipped to: ReLU is (0, inf)."""

    low: float = -INFINITY
    high: float = INFINITY

    @property
    def flag(self):
        return CLIP if self.low > -INFINITY or self.high < INFINITY else 0
