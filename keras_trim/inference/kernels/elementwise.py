"""Activations and sums, element by element, over any layout."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels import scalars
from keras_trim.inference.kernels.threads import share

_F = np.float32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)


@njit(nogil=True, inline="always")
def _clip(x, a, b):
    x = a if x < a else x
    return b if x > b else x


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
    return _HALF * x * (_ONE + scalars.erf(x * _F(0.7071067811865476)))


@njit(nogil=True, inline="always")
def _gelu_tanh(x, a, b):
    inner = _F(0.7978845608028654) * (x + _F(0.044715) * x * x * x)
    return _HALF * x * (_ONE + scalars.tanh(inner))


@njit(nogil=True, inline="always")
def _hard_sigmoid(x, a, b):
    return _clip(x / _F(6) + _HALF, _ZERO, _ONE)


@njit(nogil=True, inline="always")
def _hard_silu(x, a, b):
    return x * _clip(x / _F(6) + _HALF, _ZERO, _ONE)


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
    """`b * (x - a)` up to a, x above it: ReLU with a threshold and a slope."""
    return x if x > a else b * (x - a)


@njit(nogil=True, inline="always")
def _softplus(x, a, b):
    return max(x, _ZERO) + np.log1p(np.exp(-abs(x)))


_FUNCTIONS = {
    "clip": _clip,
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
}
FUNCTION_CODES = {name: code for code, name in enumerate(_FUNCTIONS)}


def _make_map(function):
    @njit(nogil=True, boundscheck=False)
    def apply(x, y, a, b):
        for i in range(y.size):
            y[i] = function(x[i], a, b)

    return apply


(
    _map_clip, _map_leaky_relu, _map_elu, _map_selu, _map_sigmoid, _map_tanh, _map_silu, _map_gelu,
    _map_gelu_tanh, _map_hard_sigmoid, _map_hard_silu, _map_exp, _map_softsign, _map_affine,
    _map_square, _map_threshold, _map_softplus,
) = (_make_map(function) for function in _FUNCTIONS.values())  # fmt: skip

X, Y, SIZE, CODE = range(1, 5)


@njit(nogil=True, boundscheck=False)
def _apply(code, x, y, a, b):
    if code == 0:
        _map_clip(x, y, a, b)
    elif code == 1:
        _map_leaky_relu(x, y, a, b)
    elif code == 2:
        _map_elu(x, y, a, b)
    elif code == 3:
        _map_selu(x, y, a, b)
    elif code == 4:
        _map_sigmoid(x, y, a, b)
    elif code == 5:
        _map_tanh(x, y, a, b)
    elif code == 6:
        _map_silu(x, y, a, b)
    elif code == 7:
        _map_gelu(x, y, a, b)
    elif code == 8:
        _map_gelu_tanh(x, y, a, b)
    elif code == 9:
        _map_hard_sigmoid(x, y, a, b)
    elif code == 10:
        _map_hard_silu(x, y, a, b)
    elif code == 11:
        _map_exp(x, y, a, b)
    elif code == 12:
        _map_softsign(x, y, a, b)
    elif code == 13:
        _map_affine(x, y, a, b)
    elif code == 14:
        _map_square(x, y, a, b)
    elif code == 15:
        _map_threshold(x, y, a, b)
    else:
        _map_softplus(x, y, a, b)


@njit(nogil=True, boundscheck=False)
def unary(p, f, arena, thread, num_threads):
    """y = function(x), in place if the two are the same place."""
    begin, end = share(p[SIZE], thread, num_threads)
    x, y = arena[p[X] + begin : p[X] + end], arena[p[Y] + begin : p[Y] + end]
    _apply(p[CODE], x, y, f[0], f[1])


(
    BX, BY, OUT, BSIZE, BCODE, X_STEP, Y_STEP, REPEAT,
) = range(1, 9)  # fmt: skip
BINARY_CODES = {"add": 0, "subtract": 1, "multiply": 2, "maximum": 3, "minimum": 4, "divide": 5}


@njit(nogil=True, boundscheck=False)
def _pairs(code, x, y, out):
    n = out.size
    if code == 0:
        for i in range(n):
            out[i] = x[i] + y[i]
    elif code == 1:
        for i in range(n):
            out[i] = x[i] - y[i]
    elif code == 2:
        for i in range(n):
            out[i] = x[i] * y[i]
    elif code == 3:
        for i in range(n):
            out[i] = x[i] if x[i] > y[i] or x[i] != x[i] else y[i]
    elif code == 4:
        for i in range(n):
            out[i] = x[i] if x[i] < y[i] or x[i] != x[i] else y[i]
    else:
        for i in range(n):
            out[i] = x[i] / y[i]


@njit(nogil=True, boundscheck=False)
def _with_one(code, x, y, out):
    n = out.size
    if code == 0:
        for i in range(n):
            out[i] = x[i] + y
    elif code == 1:
        for i in range(n):
            out[i] = x[i] - y
    elif code == 2:
        for i in range(n):
            out[i] = x[i] * y
    elif code == 3:
        for i in range(n):
            out[i] = x[i] if x[i] > y or x[i] != x[i] else y
    elif code == 4:
        for i in range(n):
            out[i] = x[i] if x[i] < y or x[i] != x[i] else y
    else:
        for i in range(n):
            out[i] = x[i] / y


@njit(nogil=True, boundscheck=False)
def binary(p, f, arena, thread, num_threads):
    """out[j, :] = x[j, :] (+, -, *, ...) y[j, :], or y[j] where Y_STEP is 1."""
    size = p[BSIZE]
    if p[REPEAT] == 1:
        begin, end = share(size, thread, num_threads)
        _pairs(
            p[BCODE],
            arena[p[BX] + begin : p[BX] + end],
            arena[p[BY] + begin : p[BY] + end],
            arena[p[OUT] + begin : p[OUT] + end],
        )
        return
    begin, end = share(p[REPEAT], thread, num_threads)
    for j in range(begin, end):
        x = arena[p[BX] + j * p[X_STEP] : p[BX] + j * p[X_STEP] + size]
        out = arena[p[OUT] + j * size : p[OUT] + (j + 1) * size]
        if p[Y_STEP] == 1:
            _with_one(p[BCODE], x, arena[p[BY] + j], out)
        else:
            at = p[BY] + j * p[Y_STEP]
            _pairs(p[BCODE], x, arena[at : at + size], out)
