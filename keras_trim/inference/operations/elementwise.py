"""Activations, and arithmetic of two tensors."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.elementwise import BINARY_CODES, FUNCTION_CODES
from keras_trim.inference.operations.base import Operation, require, require_number
from keras_trim.inference.plan import Tensor


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
        function: String. A key of `kernels.elementwise.BINARY_CODES`.
        is_broadcast: Boolean. Whether the two may differ in shape.
    """

    function: str
    is_broadcast: bool = True

    def check(self):
        require(self.function in BINARY_CODES, f"no function {self.function!r}")

    def lower(self, builder, x, y):
        shape = np.broadcast_shapes(x.shape, y.shape)
        if x.shape == y.shape:
            y = builder.planes(y) if x.layout == "planes" else builder.rows(y)
            z = Tensor(shape, x.layout)
            if z.size:
                code = BINARY_CODES[self.function]
                builder.emit("binary", [x, y, z, z.size, code, 0, 0, 1])
            return z
        if x.shape == shape and self._is_per_channel(x, y):
            return self._per_channel(builder, x, y, shape)
        if y.shape == shape and self.function in ("add", "multiply") and self._is_per_channel(y, x):
            return self._per_channel(builder, y, x, shape)
        z = Tensor(shape, "rows")
        function = getattr(np, self.function)
        builder.host(lambda a, b, out: function(a, b, out=out), [x, y], [z])
        return z

    def _is_per_channel(self, x, y):
        """Whether y has one number per channel (and sample) of x, as a squeeze-excite block has."""
        return (
            x.layout == "planes"
            and len(y.shape) == len(x.shape)
            and y.shape[0] == x.shape[0]
            and y.shape[-1] == x.shape[-1]
            and all(n == 1 for n in y.shape[1:-1])
        )

    def _per_channel(self, builder, x, y, shape):
        y = builder.rows(y)
        z = Tensor(shape, "planes")
        code = BINARY_CODES[self.function]
        builder.emit("binary", [x, y, z, x.plane, code, x.plane, 1, x.batch * x.channels])
        return z
