"""1D and 2D convolutions of any kernel size, stride, padding, dilation and groups."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations.base import INFINITY, Operation
from keras_trim.inference.ir.validation import (
    require,
    require_integers,
    require_number,
    require_padding,
    require_weights,
)


@dataclasses.dataclass
class Convolution(Operation):
    """y = clip(convolution(x) + bias + residual).

    Args:
        kernel: Array, float32, (height, width, input channels / groups, output channels).
        bias: Array, float32, (output channels,).
        low, high: Floats. Bounds of the clip.
        strides, dilation: Pairs of integers.
        padding: Pair, per axis "valid", "same", "causal" or (before, after).
        groups: Integer.
        input_dilation: Pair of integers. Distance between input pixels, the strides of a transposed
            convolution.
        residual: Boolean. Whether a second input, of the output's shape, is added before the clip.
    """

    arity = (1, 2)

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple = (1, 1)
    padding: tuple = ("valid", "valid")
    dilation: tuple = (1, 1)
    groups: int = 1
    input_dilation: tuple = (1, 1)
    low: float = -INFINITY
    high: float = INFINITY
    residual: bool = False

    @property
    def window(self):
        """(height, width) of the kernel."""
        return self.kernel.shape[:2]

    def check(self):
        require_weights(self.kernel, None, None, None, None)
        require_weights(self.bias, self.kernel.shape[3])
        require_integers((*self.kernel.shape, self.groups), 5, 1)
        require(self.kernel.shape[3] % self.groups == 0, "filters must be a multiple of groups")
        for pair in (self.strides, self.dilation, self.input_dilation):
            require_integers(pair, 2, 1)
        require_padding(self.padding)
        require_number(self.low)
        require_number(self.high)

    def multiply_adds(self, input_shape, output_shape):
        pixels = int(np.prod(output_shape[:-1]))
        return pixels * self.kernel.size, pixels * int(np.count_nonzero(self.kernel))
