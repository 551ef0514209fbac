"""Operations that rearrange values, convert them, or create constants."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations.base import Operation
from keras_trim.inference.ir.validation import require, require_integers, require_number

LARGEST_RANK = 5  # of tensors that converters may pass to these operations
_DTYPES = ("float16", "bfloat16", "float32", "float64", "bool", "int8", "int16", "int32", "int64",
           "uint8", "uint16", "uint32", "uint64")  # fmt: skip


@dataclasses.dataclass
class Permute(Operation):
    """Permutes axes.

    Args:
        axes: Tuple of integers, as for `np.transpose`.
    """

    axes: tuple
    takes_integers = True

    def check(self):
        require_integers(self.axes, None, 0)
        require(sorted(self.axes) == list(range(len(self.axes))), "not an order of axes")


@dataclasses.dataclass
class Slice(Operation):
    """x[begin:end:step] along each axis.

    Args:
        begins, ends, steps: Tuples, one entry per axis: the integers or None of a Python slice.
    """

    begins: tuple
    ends: tuple
    steps: tuple
    takes_integers = True

    def check(self):
        require(len(self.begins) == len(self.ends) == len(self.steps), "a slice of unequal axes")
        require(0 not in self.steps, "a slice with a step of zero")
        for part in (*self.begins, *self.ends, *self.steps):
            require(part is None or type(part) is int, "a slice without integers")


@dataclasses.dataclass
class Pad(Operation):
    """Pads with a constant, or crops, along the axes between batch and channels.

    Args:
        amounts: Tuple of pairs of integers, one per axis; negative amounts crop.
        value: Float.
    """

    amounts: tuple
    value: float = 0.0

    def check(self):
        for pair in self.amounts:
            require_integers(pair, 2, -(1 << 24))
        require_number(self.value)


@dataclasses.dataclass
class Repeat(Operation):
    """Repeats each pixel along the axes between batch and channels (nearest upsampling).

    Args:
        times: Tuple of integers.
    """

    times: tuple
    takes_integers = True

    def check(self):
        require_integers(self.times, None, 1)


@dataclasses.dataclass
class Tile(Operation):
    """Repeats a whole axis several times.

    Args:
        axis: Integer, positive.
        times: Integer.
    """

    axis: int
    times: int
    takes_integers = True

    def check(self):
        require_integers((self.axis, self.times), 2, 1)


@dataclasses.dataclass
class Constant(Operation):
    """An array that does not depend on any input.

    Args:
        value: Array, float32 or int32.
    """

    arity = (0, 0)

    value: np.ndarray

    def check(self):
        known = isinstance(self.value, np.ndarray) and self.value.dtype in (np.float32, np.int32)
        require(known, "a constant must be an array of float32 or int32")


@dataclasses.dataclass
class Cast(Operation):
    """Converts to float32 or int32 (rounding toward zero), or to the range of a narrower type.

    Args:
        dtype: String, the name of a Keras dtype.
        saturates: Boolean. Whether floats that are too large for integers become the largest one;
            otherwise they wrap.
    """

    dtype: str
    saturates: bool = False
    takes_integers = True

    def check(self):
        require(self.dtype in _DTYPES, f"no dtype {self.dtype!r}")
