"""Activations, element by element, over any layout."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.elementwise import scalars
from keras_trim.inference.kernels.instructions import UNARY, executes
from keras_trim.inference.kernels.switch import switch
from keras_trim.inference.kernels.work_sharing import share

AT = UNARY.at

_F = np.float32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)


@njit(nogil=True, inline="always")
def _leaky_relu(x, a, b):
    return a * x if x < _ZERO else x


@njit(nogil=True, inline="always")
def _elu(x, a, b):
    return a * (scalars.exp(x) - _ONE) if x < _ZERO else x


@njit(nogil=True, inline="always")
def _selu(x, a, b):
    scale, alpha = _F(1.0507009873554805), _F(1.6732632423543772)
    return scale * (alpha * (scalars.exp(x) - _ONE) if x < _ZERO else x)


@njit(nogil=True, inline="always")
def _sigmoid(x, a, b):
    return scalars.sigmoid(x)


@njit(nogil=True, inline="always")
def _tanh(x, a, b):
    return scalars.tanh(x)


@njit(nogil=True, inline="always")
def _silu(x, a, b):
    return x * scalars.sigmoid(x)


@njit(nogil=True, inline="always")
def _gelu(x, a, b):
    return _HALF * x * scalars.erfc(x * _F(-0.7071067811865476))


@njit(nogil=True, inline="always")
def _gelu_tanh(x, a, b):
    inner = _F(0.7978845608028654) * (x + _F(0.044715) * x * x * x)
    return _HALF * x * (_ONE + scalars.tanh(inner))


@njit(nogil=True, inline="always")
def _hard_sigmoid(x, a, b):
    return scalars.clip(x / _F(6) + _HALF, _ZERO, _ONE)


@njit(nogil=True, inline="always")
def _hard_silu(x, a, b):
    return x * scalars.clip(x / _F(6) + _HALF, _ZERO, _ONE)


@njit(nogil=True, inline="always")
def _exp(x, a, b):
    return scalars.exp(x)


@njit(nogil=True, inline="always")
def _softsign(x, a, b):
    return x / (_ONE + abs(x))


@njit(nogil=True, inline="always")
def _affine(x, a, b):
    return a * x + b


@njit(nogil=True, inline="always")
def _square(x, a, b):
    return x * x


@njit(nogil=True, inline="always")
def _threshold(x, a, b):
    """x above a, `b * (x - a)` up to it: ReLU with a threshold and a slope.

    Without a slope, everything not above a becomes 0, even NaN and infinities, as in Keras.
    """
    return x if x > a else (_ZERO if b == _ZERO else b * (x - a))


@njit(nogil=True, inline="always")
def _softplus(x, a, b):
    return max(x, _ZERO) + np.log1p(np.exp(-abs(x)))


@njit(nogil=True, inline="always")
def _log_sigmoid(x, a, b):
    return -_softplus(-x, a, b)


@njit(nogil=True, inline="always")
def _mish(x, a, b):
    return x * scalars.tanh(_softplus(x, a, b))


@njit(nogil=True, inline="always")
def _celu(x, a, b):
    return a * (scalars.exp(x / a) - _ONE) if x < _ZERO else x


@njit(nogil=True, inline="always")
def _hard_shrink(x, a, b):
    """NaN stays NaN only if b is not 0; the same holds for `_soft_shrink`."""
    return x if abs(x) > a or (x != x and b != _ZERO) else _ZERO


@njit(nogil=True, inline="always")
def _soft_shrink(x, a, b):
    small = x if x != x and b != _ZERO else _ZERO
    return x - a if x > a else (x + a if x < -a else small)


@njit(nogil=True, inline="always")
def _tanh_shrink(x, a, b):
    return x - scalars.tanh(x)


@njit(nogil=True, inline="always")
def _abs(x, a, b):
    return abs(x)


@njit(nogil=True, inline="always")
def _sqrt(x, a, b):
    return np.sqrt(x)


@njit(nogil=True, inline="always")
def _log(x, a, b):
    return np.log(x)


@njit(nogil=True, inline="always")
def _divided(x, a, b):
    """`a / (x + b)`."""
    return a / (x + b)


@njit(nogil=True, inline="always")
def _rsqrt(x, a, b):
    return _ONE / np.sqrt(x)


@njit(nogil=True, inline="always")
def _power(x, a, b):
    return x**a


_FUNCTIONS = {
    "clip": scalars.clip,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "exponential": _exp,
    "softsign": _softsign,
    "affine": _affine,
    "square": _square,
    "threshold": _threshold,
    "softplus": _softplus,
    "log_sigmoid": _log_sigmoid,
    "mish": _mish,
    "celu": _celu,
    "hard_shrink": _hard_shrink,
    "soft_shrink": _soft_shrink,
    "tanh_shrink": _tanh_shrink,
    "abs": _abs,
    "sqrt": _sqrt,
    "log": _log,
    "divided": _divided,
    "rsqrt": _rsqrt,
    "power": _power,
}
FUNCTION_CODES = {name: code for code, name in enumerate(_FUNCTIONS)}


def _make_map(function):
    # In place: with two arrays, LLVM would have to know that they do not overlap.
    @inner(error_model="numpy")
    def apply(x, a, b):
        for i in range(x.size):
            x[i] = function(x[i], a, b)

    return apply


_CHUNK = 1024  # floats that are copied, then processed; they stay in the first-level cache


# `apply_function(code, x, a, b)`: x = function(x, a, b)
apply_function = switch(
    "x, a, b", {code: _make_map(f) for code, f in enumerate(_FUNCTIONS.values())}
)


@executes(UNARY)
@inner
def unary(p, f, arena, thread, num_threads):
    """y = function(x), in place if x and y are the same place."""
    begin, end = share(p[AT.size], thread, num_threads)
    while begin < end:
        size = min(_CHUNK, end - begin)
        x, y = p[AT.x] + begin, p[AT.y] + begin
        if x != y:
            arena[y : y + size] = arena[x : x + size]
        apply_function(p[AT.function], arena[y : y + size], f[AT.a], f[AT.b])
        begin += size
