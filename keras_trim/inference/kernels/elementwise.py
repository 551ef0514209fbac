"""Activations and sums, element by element, over any layout."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels import scalars
from keras_trim.inference.kernels.strided import AXES
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
    return _HALF * x * scalars.erfc(x * _F(-0.7071067811865476))


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
    return _ZERO if abs(x) <= a else x


@njit(nogil=True, inline="always")
def _soft_shrink(x, a, b):
    return x - a if x > a else (x + a if x < -a else x - x)


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
    @njit(nogil=True, boundscheck=False, error_model="numpy")
    def apply(x, y, a, b):
        for i in range(y.size):
            y[i] = function(x[i], a, b)

    return apply


X, Y, SIZE, CODE = range(1, 5)


def _make_apply():
    """One function that calls the map of each code; Numba compiles no table of functions."""
    maps = {f"map_{code}": _make_map(f) for code, f in enumerate(_FUNCTIONS.values())}
    lines = ["def apply(code, x, y, a, b):"]
    for code in range(len(maps)):
        lines += [f"    if code == {code}:", f"        map_{code}(x, y, a, b)", "        return"]
    exec("\n".join(lines), maps)
    return njit(nogil=True, boundscheck=False)(maps["apply"])


_apply = _make_apply()


@njit(nogil=True, boundscheck=False)
def unary(p, f, arena, thread, num_threads):
    """y = function(x), in place if the two are the same place."""
    begin, end = share(p[SIZE], thread, num_threads)
    x, y = arena[p[X] + begin : p[X] + end], arena[p[Y] + begin : p[Y] + end]
    _apply(p[CODE], x, y, f[0], f[1])


BX, BY, OUT, BSIZE, BCODE = range(1, 6)
BINARY_CODES = {
    "add": 0,
    "subtract": 1,
    "multiply": 2,
    "maximum": 3,
    "minimum": 4,
    "divide": 5,
    "power": 6,
}


@njit(nogil=True, inline="always")
def _maximum(x, y):
    return x if x > y or x != x else y


@njit(nogil=True, inline="always")
def _minimum(x, y):
    return x if x < y or x != x else y


# Dividing by zero gives an infinity or NaN, as NumPy has it, not an exception.
@njit(nogil=True, boundscheck=False, error_model="numpy")
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
            out[i] = _maximum(x[i], y[i])
    elif code == 4:
        for i in range(n):
            out[i] = _minimum(x[i], y[i])
    elif code == 5:
        for i in range(n):
            out[i] = x[i] / y[i]
    else:
        for i in range(n):
            out[i] = x[i] ** y[i]


@njit(nogil=True, boundscheck=False, error_model="numpy")
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
            out[i] = _maximum(x[i], y)
    elif code == 4:
        for i in range(n):
            out[i] = _minimum(x[i], y)
    elif code == 5:
        for i in range(n):
            out[i] = x[i] / y
    else:
        for i in range(n):
            out[i] = x[i] ** y


@njit(nogil=True, inline="always", error_model="numpy")
def _pair(code, x, y):
    if code == 0:
        return x + y
    if code == 1:
        return x - y
    if code == 2:
        return x * y
    if code == 3:
        return _maximum(x, y)
    if code == 4:
        return _minimum(x, y)
    if code == 5:
        return x / y
    return x**y


@njit(nogil=True, boundscheck=False)
def binary(p, f, arena, thread, num_threads):
    """out = x (+, -, *, ...) y, of equal shape and layout."""
    begin, end = share(p[BSIZE], thread, num_threads)
    _pairs(
        p[BCODE],
        arena[p[BX] + begin : p[BX] + end],
        arena[p[BY] + begin : p[BY] + end],
        arena[p[OUT] + begin : p[OUT] + end],
    )


_SIZES, _X_STRIDES, _Y_STRIDES, _OUT_STRIDES = (5 + i * AXES for i in range(4))


@njit(nogil=True, boundscheck=False)
def broadcast(p, f, arena, thread, num_threads):
    """out[i] = x[i] (+, -, *, ...) y[i] for all places i; see `strided.py`."""
    lines = 1
    for axis in range(AXES - 1):
        lines *= p[_SIZES + axis]
    begin, end = share(lines, thread, num_threads)
    count = p[_SIZES + AXES - 1]
    x_step, y_step = p[_X_STRIDES + AXES - 1], p[_Y_STRIDES + AXES - 1]
    out_step, code = p[_OUT_STRIDES + AXES - 1], p[4]
    for line in range(begin, end):
        left, x, y, out = line, p[BX], p[BY], p[OUT]
        for axis in range(AXES - 2, -1, -1):
            size = p[_SIZES + axis]
            if size > 1:
                rest = left // size
                i = left - rest * size
                left = rest
                x += i * p[_X_STRIDES + axis]
                y += i * p[_Y_STRIDES + axis]
                out += i * p[_OUT_STRIDES + axis]
        if x_step == 1 and y_step == 1 and out_step == 1:
            _pairs(code, arena[x : x + count], arena[y : y + count], arena[out : out + count])
        elif x_step == 1 and y_step == 0 and out_step == 1:
            _with_one(code, arena[x : x + count], arena[y], arena[out : out + count])
        else:
            for i in range(count):
                a, b = arena[x + i * x_step], arena[y + i * y_step]
                arena[out + i * out_step] = _pair(code, a, b)
