"""Pooling."""

import dataclasses

from keras_trim.inference.ir.operations.base import INFINITY, Operation
from keras_trim.inference.ir.validation import (
    require,
    require_integers,
    require_number,
    require_padding,
)

_MOST_TAPS = 1 << 20  # pixels in a window


@dataclasses.dataclass
class Pool(Operation):
    """Clipped maximum or mean over windows; the mean ignores pixels outside the image.

    Args:
        window, strides: Pairs of integers.
        padding: Pair, as in `Convolution`.
        is_max: Boolean.
        pad_value: Float. Value of pixels outside the image, for a maximum.
        low, high: Floats, as in `Convolution`.
    """

    window: tuple
    strides: tuple
    padding: tuple
    is_max: bool
    pad_value: float = -INFINITY
    low: float = -INFINITY
    high: float = INFINITY

    dilation = (1, 1)

    def check(self):
        require_integers(self.window, 2, 1)
        require(self.window[0] * self.window[1] <= _MOST_TAPS, "a window that is too large")
        require_integers(self.strides, 2, 1)
        require_padding(self.padding)
        require_number(self.pad_value)
        require_number(self.low)
        require_number(self.high)


@dataclasses.dataclass
class GlobalPool(Operation):
    """Maximum or mean over all pixels.

    Args:
        is_max: Boolean.
        keepdims: Boolean.
    """

    is_max: bool
    keepdims: bool
