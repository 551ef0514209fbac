"""Depthwise convolution."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations.base import INFINITY, Operation
from keras_trim.inference.ir.validation import (
    require_integers,
    require_number,
    require_padding,
    require_weights,
)


@dataclasses.dataclass
class DepthwiseConvolution(Operation):
    """y[..., c * multiplier + m] = clip(convolution(x[..., c], kernel[..., c, m]) + bias).

    Args:
        kernel: Array, float32, (height, width, channels, multiplier).
        bias: Array, float32, (channels * multiplier,).
        strides, dilation, padding, low, high: As in `Convolution`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple = (1, 1)
    padding: tuple = ("valid", "valid")
    dilation: tuple = (1, 1)
    low: float = -INFINITY
    high: float = INFINITY

    @property
    def window(self):
        """(height, width) of the kernel."""
        return self.kernel.shape[:2]

    def check(self):
        require_weights(self.kernel, None, None, None, None)
        require_integers(self.kernel.shape, 4, 1)
        require_weights(self.bias, self.kernel.shape[2] * self.kernel.shape[3])
        for pair in (self.strides, self.dilation):
            require_integers(pair, 2, 1)
        require_padding(self.padding)
        require_number(self.low)
        require_number(self.high)

    def multiply_adds(self, input_shape, output_shape):
        pixels = int(np.prod(output_shape[:-1]))
        return pixels * self.kernel.size, pixels * int(np.count_nonzero(self.kernel))
