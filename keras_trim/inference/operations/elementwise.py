"""Activations, and arithmetic of two tensors."""

import dataclasses
import math

import numpy as np

from keras_trim.inference.kernels.arithmetic import BINARY_CODES
from keras_trim.inference.kernels.elementwise import FUNCTION_CODES
from keras_trim.inference.operations.base import Operation, require, require_number
from keras_trim.inference.operations.strided import emit_broadcast
from keras_trim.inference.tensors import Tensor

COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")


@dataclasses.dataclass
class Activation(Operation):
    """y = function(x, a, b), see `kernels/elementwise.py`."""

    function: str
    a: float = 0.0
    b: float = 0.0

    def check(self):
        require(self.function in FUNCTION_CODES, f"no function {self.function!r}")
        require_number(self.a)
        require_number(self.b)

    def lower(self, builder, x):
        y = Tensor(x.shape, x.layout)
        if x.size:
            builder.emit("unary", [x, y, x.size, FUNCTION_CODES[self.function]], [self.a, self.b])
        return y


@dataclasses.dataclass
class Softmax(Operation):
    """Softmax over the last axis, or its logarithm."""

    is_log: bool = False

    def lower(self, builder, x):
        x = builder.rows(x)
        y = Tensor(x.shape, "rows")
        if x.size:
            width = x.shape[-1]
            builder.emit("softmax", [x, y, x.size // width, width, int(self.is_log)])
        return y


@dataclasses.dataclass
class Binary(Operation):
    """z = function(x, y), with NumPy's broadcasting.

    Args:
        function: String. A key of `kernels.arithmetic.BINARY_CODES`.
        is_broadcast: Boolean. Whether the two may differ in shape.
    """

    function: str
    is_broadcast: bool = True

    def check(self):
        require(self.function in BINARY_CODES, f"no function {self.function!r}")

    def lower(self, builder, x, y):
        shape = np.broadcast_shapes(x.shape, y.shape)
        builder.require_memory(math.prod(shape))
        if x.shape == y.shape:
            y = builder.planes(y) if x.layout == "planes" else builder.rows(y)
            z = Tensor(shape, x.layout)
            if z.size:
                builder.emit("binary", [x, y, z, z.size, BINARY_CODES[self.function]])
            return z
        z = Tensor(shape, _layout(shape, x, y))
        if z.size:
            emit_broadcast(builder, BINARY_CODES[self.function], x, y, z)
        return z


def _layout(shape, *inputs):
    """In planes if an input of the output's shape lies so; the others hardly count."""
    return "planes" if any(x.layout == "planes" and x.shape == shape for x in inputs) else "rows"


@dataclasses.dataclass
class Compare(Operation):
    """x == number and the like: 1 where it is so, else 0.

    Args:
        function: String, the name of NumPy's function.
        number: Float.
    """

    function: str
    number: float
    takes_integers = True
    gives = "bool"

    def check(self):
        require(self.function in COMPARISONS, f"no comparison {self.function!r}")
        require_number(self.number)

    def lower(self, builder, x):
        y = Tensor(x.shape, "rows", "int32")
        function, number = getattr(np, self.function), self.number
        builder.host(lambda a, out: np.copyto(out, function(a, number)), [x], [y])
        return y


@dataclasses.dataclass
class Select(Operation):
    """x where the condition is not 0, else y, with NumPy's broadcasting."""

    gives = "float32"

    def lower(self, builder, condition, x, y):
        out = Tensor(np.broadcast_shapes(condition.shape, x.shape, y.shape), "rows")
        builder.choose("NumPy")

        def select(condition, x, y, out):
            np.copyto(out, y)
            np.copyto(out, x, where=condition != 0)

        builder.host(select, [condition, x, y], [out], memory=out.size)
        return out
