"""Images of another size: each pixel a blend of two by two others, or a copy of the nearest."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels.threads import share

(
    X, X_PLANE, Y, Y_PLANE, PLANES, WIDTH, OUT_HEIGHT, OUT_WIDTH, IS_BLEND, ROWS, ROW_WEIGHTS,
    COLUMNS, COLUMN_WEIGHTS, SCRATCH, SCRATCH_SIZE,
) = range(1, 16)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _pick(x, y, columns):
    for i in range(y.size):
        y[i] = x[columns[i]]


@njit(nogil=True, boundscheck=False)
def _blend_columns(x, y, left, right, weights):
    for i in range(y.size):
        y[i] = x[left[i]] * (np.float32(1) - weights[i]) + x[right[i]] * weights[i]


@njit(nogil=True, boundscheck=False)
def _blend_rows(x, other, y, weight):
    for i in range(y.size):
        y[i] = x[i] * (np.float32(1) - weight) + other[i] * weight


@njit(nogil=True, boundscheck=False)
def resize(p, arena, constants, index, short_index, thread, num_threads):
    """Row i of y is `1 - w[i]` times row r[i] of x and `w[i]` times row s[i]; so are its columns.

    The two rows are the same or neighbors. Each row of x is brought to its width once, into one of
    two places of the scratch memory.
    """
    height, width = p[OUT_HEIGHT], p[OUT_WIDTH]
    begin, end = share(p[PLANES] * height, thread, num_threads)
    left = short_index[p[COLUMNS] : p[COLUMNS] + width]
    right = short_index[p[COLUMNS] + width : p[COLUMNS] + 2 * width]
    weights = constants[p[COLUMN_WEIGHTS] : p[COLUMN_WEIGHTS] + width]
    scratch = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    even, odd = arena[scratch : scratch + width], arena[scratch + width : scratch + 2 * width]
    held_even = held_odd = -1  # rows of all planes that they hold
    for item in range(begin, end):
        plane, i = item // height, item % height
        x = p[X] + plane * p[X_PLANE]
        start = p[Y] + plane * p[Y_PLANE] + i * width
        y = arena[start : start + width]
        upper, lower = index[p[ROWS] + i], index[p[ROWS] + height + i]
        if not p[IS_BLEND]:
            _pick(arena[x + upper * p[WIDTH] : x + (upper + 1) * p[WIDTH]], y, left)
            continue
        for row in (upper, lower):
            number = plane * p[X_PLANE] + row
            source = arena[x + row * p[WIDTH] : x + (row + 1) * p[WIDTH]]
            if row % 2 and held_odd != number:
                _blend_columns(source, odd, left, right, weights)
                held_odd = number
            elif row % 2 == 0 and held_even != number:
                _blend_columns(source, even, left, right, weights)
                held_even = number
        weight = constants[p[ROW_WEIGHTS] + i]
        if upper % 2:
            _blend_rows(odd, odd if lower == upper else even, y, weight)
        else:
            _blend_rows(even, even if lower == upper else odd, y, weight)
