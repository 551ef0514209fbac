"""Arithmetic of two tensors: of one layout, or broadcast to one another."""

from numba import njit

from keras_trim.inference.kernels.strided import AXES
from keras_trim.inference.kernels.threads import share

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
