"""Arithmetic on two tensors, of equal shape and layout or broadcast."""

from numba import njit

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import AXES, BINARY, BROADCAST, executes
from keras_trim.inference.kernels.switch import switch
from keras_trim.inference.kernels.work_sharing import share

_BINARY, _BROADCAST = BINARY.at, BROADCAST.at


@njit(nogil=True, inline="always")
def _add(x, y):
    return x + y


@njit(nogil=True, inline="always")
def _subtract(x, y):
    return x - y


@njit(nogil=True, inline="always")
def _multiply(x, y):
    return x * y


@njit(nogil=True, inline="always")
def _maximum(x, y):
    return x if x > y or x != x else y


@njit(nogil=True, inline="always")
def _minimum(x, y):
    return x if x < y or x != x else y


# Dividing by zero gives an infinity or NaN, as in NumPy, not an exception.
@njit(nogil=True, inline="always", error_model="numpy")
def _divide(x, y):
    return x / y


@njit(nogil=True, inline="always")
def _power(x, y):
    return x**y


_FUNCTIONS = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "maximum": _maximum,
    "minimum": _minimum,
    "divide": _divide,
    "power": _power,
}
BINARY_CODES = {name: code for code, name in enumerate(_FUNCTIONS)}


def _make_pairs(function):
    @inner(error_model="numpy")
    def pairs(x, y, out):
        for i in range(out.size):
            out[i] = function(x[i], y[i])

    return pairs


def _make_with_one(function):
    @inner(error_model="numpy")
    def with_one(x, y, out):
        for i in range(out.size):
            out[i] = function(x[i], y)

    return with_one


def _make_strided(function):
    @inner(error_model="numpy")
    def strided(arena, x, x_step, y, y_step, out, out_step, count):
        for i in range(count):
            arena[out + i * out_step] = function(arena[x + i * x_step], arena[y + i * y_step])

    return strided


_pairs, _with_one, _strided = (
    switch(parameters, {code: make(f) for code, f in enumerate(_FUNCTIONS.values())})
    for make, parameters in (
        (_make_pairs, "x, y, out"),
        (_make_with_one, "x, y, out"),
        (_make_strided, "arena, x, x_step, y, y_step, out, out_step, count"),
    )
)


@executes(BINARY)
@inner
def binary(p, f, arena, thread, num_threads):
    """out = x (+, -, *, ...) y, of equal shape and layout."""
    begin, end = share(p[_BINARY.size], thread, num_threads)
    _pairs(
        p[_BINARY.function],
        arena[p[_BINARY.x] + begin : p[_BINARY.x] + end],
        arena[p[_BINARY.y] + begin : p[_BINARY.y] + end],
        arena[p[_BINARY.out] + begin : p[_BINARY.out] + end],
    )


@executes(BROADCAST)
@inner
def broadcast(p, f, arena, thread, num_threads):
    """out[i] = x[i] (+, -, *, ...) y[i] for all indices i; see `layout/strided.py`."""
    lines = 1
    for axis in range(AXES - 1):
        lines *= p[_BROADCAST.sizes + axis]
    begin, end = share(lines, thread, num_threads)
    count = p[_BROADCAST.sizes + AXES - 1]
    x_step, y_step = p[_BROADCAST.x_strides + AXES - 1], p[_BROADCAST.y_strides + AXES - 1]
    out_step, code = p[_BROADCAST.out_strides + AXES - 1], p[_BROADCAST.function]
    for line in range(begin, end):
        left, x, y, out = line, p[_BROADCAST.x], p[_BROADCAST.y], p[_BROADCAST.out]
        for axis in range(AXES - 2, -1, -1):
            size = p[_BROADCAST.sizes + axis]
            if size > 1:
                rest = left // size
                i = left - rest * size
                left = rest
                x += i * p[_BROADCAST.x_strides + axis]
                y += i * p[_BROADCAST.y_strides + axis]
                out += i * p[_BROADCAST.out_strides + axis]
        if x_step == 1 and y_step == 1 and out_step == 1:
            _pairs(code, arena[x : x + count], arena[y : y + count], arena[out : out + count])
        elif x_step == 1 and y_step == 0 and out_step == 1:
            _with_one(code, arena[x : x + count], arena[y], arena[out : out + count])
        else:
            _strided(code, arena, x, x_step, y, y_step, out, out_step, count)
