"""What is known of a matrix product inside a layer.

A product is read as `systems` independent products of (samples, inputs) and (inputs, outputs):
one for a dense layer or a convolution, one per group of a grouped convolution, one per label that
an einsum shares between data, kernel and output. A convolution's inputs are its unfolded windows,
place by place, channels last.
"""

import abc

import keras
import numpy as np
from keras import ops


class Product(abc.ABC):
    """How one kernel of a layer multiplies what the layer is called with.

    Args:
        layer: The layer whose call is watched.
        variable: The kernel, a Keras variable.
        bias: The variable that is added to the product, or `None`.
    """

    # Whether the product, with the bias and the activation, is all that the layer gives, its last
    # labels being those of systems and outputs.
    is_output = False

    def __init__(self, layer, variable, bias):
        self.layer, self.variable, self.bias = layer, variable, bias

    @property
    @abc.abstractmethod
    def shape(self):
        """Tuple (systems, inputs, outputs)."""

    @property
    def channels(self):
        """Integer: how many consecutive inputs belong to one place of a window."""
        return self.shape[1]

    @abc.abstractmethod
    def to_matrices(self, kernel):
        """NumPy array in the variable's shape -> (systems, inputs, outputs)."""

    @abc.abstractmethod
    def from_matrices(self, matrices):
        """The reverse of `to_matrices`."""

    @abc.abstractmethod
    def rows(self, x):
        """What the kernel multiplies: float64 array (systems, samples, inputs).

        Args:
            x: Tensor that the layer was called with.
        """

    def outputs(self, x, kernel):
        """What the product gives, without a bias: float64 array (systems, samples, outputs)."""
        return self.rows(x) @ self.to_matrices(to_numpy(kernel))

    @abc.abstractmethod
    def row_bytes(self, x):
        """Integer: bytes of the rows of one example."""

    def shifted_bias(self, bias, shift):
        """The bias that adds a shift of the outputs, or `None` if it cannot.

        Args:
            bias: Float64 array in the bias's shape.
            shift: Float64 array (systems, outputs).
        """
        return bias + shift.reshape(bias.shape)

    @property
    def has_free_bias(self):
        """Whether the bias can take any shift of the outputs."""
        return self.bias is not None


def to_numpy(x):
    """A tensor or variable as a float64 NumPy array."""
    x = ops.convert_to_tensor(x)
    if keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        x = ops.cast(x, "float32")
    return np.asarray(ops.convert_to_numpy(x), "float64")
