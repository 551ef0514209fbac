"""Operations that only move values."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations.base import Operation
from keras_trim.inference.ir.validation import require_integers, require_weights


@dataclasses.dataclass
class Reshape(Operation):
    """Reshapes each sample; one axis may be -1.

    Args:
        shape: Tuple of integers, without the batch axis.
    """

    shape: tuple
    takes_integers = True

    def check(self):
        require_integers(self.shape, None, -1)


@dataclasses.dataclass
class Concatenate(Operation):
    """Tensors joined along an axis.

    Args:
        axis: Integer, not negative.
    """

    arity = (0, None)

    axis: int
    takes_integers = True

    def check(self):
        require_integers((self.axis,), 1, 0)


@dataclasses.dataclass
class Embedding(Operation):
    """y = table[x].

    Args:
        table: Array, float32, (length, width).
    """

    table: np.ndarray
    takes_integers = True
    output_dtype = "float32"

    def check(self):
        require_weights(self.table, None, None)
