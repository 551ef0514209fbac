"""Dense layers."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations.base import INFINITY, Operation
from keras_trim.inference.ir.validation import require_integers, require_number, require_weights


@dataclasses.dataclass
class Dense(Operation):
    """y = clip(x @ kernel + bias), over the last axis of x.

    Args:
        kernel: Array, float32, (inputs, outputs).
        bias: Array, float32, (outputs,).
        low, high: Floats. Bounds of the clip.
    """

    kernel: np.ndarray
    bias: np.ndarray
    low: float = -INFINITY
    high: float = INFINITY

    def check(self):
        require_weights(self.kernel, None, None)
        require_integers(self.kernel.shape, 2, 1)
        require_weights(self.bias, self.kernel.shape[1])
        require_number(self.low)
        require_number(self.high)

    def multiply_adds(self, input_shape, output_shape):
        rows = int(np.prod(output_shape[:-1]))
        return rows * self.kernel.size, rows * int(np.count_nonzero(self.kernel))
