"""Moves and arithmetic over tensors of any layout: up to eight axes, each with its strides.

Sizes, and a stride per axis and tensor, describe permutations, slices, padding, repetition and
broadcasting alike. `operations/strided.py` orders the axes so that the last one is contiguous in
the output where that is possible.
"""

from numba import njit

from keras_trim.inference.kernels.copies import copy_floats
from keras_trim.inference.kernels.threads import share

AXES = 8
X, Y = 1, 2
_SIZES, _X_STRIDES, _Y_STRIDES = 3, 3 + AXES, 3 + 2 * AXES


@njit(nogil=True, boundscheck=False)
def move(p, arena, thread, num_threads):
    """y[i] = x[i] for all places i."""
    lines = 1
    for axis in range(AXES - 1):
        lines *= p[_SIZES + axis]
    begin, end = share(lines, thread, num_threads)
    count = p[_SIZES + AXES - 1]
    x_step, y_step = p[_X_STRIDES + AXES - 1], p[_Y_STRIDES + AXES - 1]
    base = arena.ctypes.data
    for line in range(begin, end):
        left, x, y = line, p[X], p[Y]
        for axis in range(AXES - 2, -1, -1):
            size = p[_SIZES + axis]
            if size > 1:
                rest = left // size
                i = left - rest * size
                left = rest
                x += i * p[_X_STRIDES + axis]
                y += i * p[_Y_STRIDES + axis]
        if x_step == 1 and y_step == 1:
            copy_floats(base + 4 * y, base + 4 * x, count)
        else:
            for i in range(count):
                arena[y + i * y_step] = arena[x + i * x_step]


@njit(nogil=True, boundscheck=False)
def fill(p, f, arena, thread, num_threads):
    """x[:] = value."""
    begin, end = share(p[2], thread, num_threads)
    arena[p[X] + begin : p[X] + end] = f[0]


@njit(nogil=True, boundscheck=False)
def constant(p, arena, constants, thread, num_threads):
    """x[:] = constant[:]."""
    begin, end = share(p[2], thread, num_threads)
    arena[p[X] + begin : p[X] + end] = constants[p[3] + begin : p[3] + end]


@njit(nogil=True, boundscheck=False)
def scale(p, arena, constants, thread, num_threads):
    """y[i, :] = x[i, :] * scale[:] + shift[:], or with scale[i % channels] for planes."""
    width, channels = p[4], p[7]
    begin, end = share(p[3], thread, num_threads)
    for i in range(begin, end):
        x = arena[p[X] + i * width : p[X] + (i + 1) * width]
        y = arena[p[Y] + i * width : p[Y] + (i + 1) * width]
        if channels:
            a, b = constants[p[5] + i % channels], constants[p[6] + i % channels]
            for j in range(width):
                y[j] = x[j] * a + b
        else:
            a, b = constants[p[5] : p[5] + width], constants[p[6] : p[6] + width]
            for j in range(width):
                y[j] = x[j] * a[j] + b[j]
