"""The matrix product inside a layer.

A product consists of `systems` independent products of (samples, inputs) and (inputs, outputs):
one for a dense layer or a convolution, one per group of a grouped convolution, one per index that
an einsum shares between data, kernel and output. A convolution's inputs are its unfolded windows,
position by position, channels last.
"""

import abc

import keras
import numpy as np
from keras import ops


class Product(abc.ABC):
    """How one kernel of a layer multiplies the layer's input.

    Args:
        layer: The layer whose call is watched.
        variable: The kernel, a Keras variable.
        bias: The variable that is added to the product, or `None`.
    """

    # Whether the layer's output is just the product with bias and activation, the last axes being
    # systems and outputs.
    is_output = False

    @property
    def is_divided(self):
        """Whether the systems are parts of one matrix, whose outputs add up."""
        return False

    def __init__(self, layer, variable, bias):
        self.layer, self.variable, self.bias = layer, variable, bias

    @property
    @abc.abstractmethod
    def shape(self):
        """Tuple (systems, inputs, outputs)."""

    @property
    def channels(self):
        """Integer: how many consecutive inputs belong to one position of a window."""
        return self.shape[1]

    @abc.abstractmethod
    def to_matrices(self, kernel):
        """NumPy array in the variable's shape -> (systems, inputs, outputs)."""

    @abc.abstractmethod
    def from_matrices(self, matrices):
        """The inverse of `to_matrices`."""

    @abc.abstractmethod
    def rows(self, x):
        """The rows that the kernel multiplies: float64 array (systems, samples, inputs).

        Args:
            x: Tensor, the input of the layer.
        """

    def outputs(self, x, kernel):
        """The product without bias: float64 array (systems, samples, outputs)."""
        return self.rows(x) @ self.to_matrices(to_numpy(kernel))

    @abc.abstractmethod
    def row_bytes(self, x):
        """Integer: bytes of the rows of one example."""

    def shifted_bias(self, bias, shift):
        """The bias after adding a shift of the outputs.

        Args:
            bias: Float64 array in the bias's shape.
            shift: Float64 array (systems, outputs).
        """
        return bias + self.output_shift(shift).reshape(bias.shape)

    def output_shift(self, shift):
        """The shift of the layer's outputs, given that of the systems' outputs."""
        return shift

    @property
    def has_free_bias(self):
        """Whether the bias can represent any shift of the outputs."""
        return self.bias is not None


def to_numpy(x):
    """A tensor or variable as a float64 NumPy array."""
    x = ops.convert_to_tensor(x)
    if keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        x = ops.cast(x, "float32")
    return np.asarray(ops.convert_to_numpy(x), "float64")
