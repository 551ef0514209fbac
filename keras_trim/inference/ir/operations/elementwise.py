"""Activations, and arithmetic of two tensors."""

import dataclasses

from keras_trim.inference.ir.operations.base import Operation
from keras_trim.inference.ir.validation import require, require_number
from keras_trim.inference.kernels.elementwise.binary import BINARY_CODES
from keras_trim.inference.kernels.elementwise.unary import FUNCTION_CODES

COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")


@dataclasses.dataclass
class Activation(Operation):
    """y = function(x, a, b), a key of `FUNCTION_CODES` in `kernels/elementwise/unary.py`."""

    function: str
    a: float = 0.0
    b: float = 0.0

    def check(self):
        require(self.function in FUNCTION_CODES, f"no function {self.function!r}")
        require_number(self.a)
        require_number(self.b)


@dataclasses.dataclass
class Softmax(Operation):
    """Softmax over the last axis, or its logarithm."""

    is_log: bool = False


@dataclasses.dataclass
class Binary(Operation):
    """z = function(x, y), with NumPy's broadcasting.

    Args:
        function: String. A key of `kernels.elementwise.binary.BINARY_CODES`.
        is_broadcast: Boolean. Whether x and y may differ in shape.
    """

    arity = (2, 2)

    function: str
    is_broadcast: bool = True

    def check(self):
        require(self.function in BINARY_CODES, f"no function {self.function!r}")


@dataclasses.dataclass
class Compare(Operation):
    """Compares x with a number: 1 where true, else 0.

    Args:
        function: String, the name of the NumPy function, one of `COMPARISONS`.
        number: Float.
    """

    function: str
    number: float
    takes_integers = True
    output_dtype = "bool"

    def check(self):
        require(self.function in COMPARISONS, f"no comparison {self.function!r}")
        require_number(self.number)


@dataclasses.dataclass
class Select(Operation):
    """x where the condition is not 0, else y, with NumPy's broadcasting."""

    arity = (3, 3)

    output_dtype = "float32"
