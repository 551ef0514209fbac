"""Resizing of images: each pixel is a blend of 2 x 2 others, or a copy of the nearest."""

import numpy as np

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import RESIZE, executes
from keras_trim.inference.kernels.work_sharing import share

AT = RESIZE.at


@inner
def _pick(x, y, columns):
    for i in range(y.size):
        y[i] = x[columns[i]]


@inner
def _blend_columns(x, y, left, right, weights):
    for i in range(y.size):
        y[i] = x[left[i]] * (np.float32(1) - weights[i]) + x[right[i]] * weights[i]


@inner
def _blend_rows(x, other, y, weight):
    for i in range(y.size):
        y[i] = x[i] * (np.float32(1) - weight) + other[i] * weight


@executes(RESIZE)
@inner
def resize(p, arena, constants, index, short_index, thread, num_threads):
    """y[i] = (1 - w[i]) * x[r[i]] + w[i] * x[s[i]] for rows i; columns likewise.

    The two rows of x are equal or neighbors. Each row of x is resized to the width of y once, into
    one of two buffers in scratch memory.
    """
    height, width = p[AT.out_height], p[AT.out_width]
    begin, end = share(p[AT.planes] * height, thread, num_threads)
    left = short_index[p[AT.columns] : p[AT.columns] + width]
    right = short_index[p[AT.columns] + width : p[AT.columns] + 2 * width]
    weights = constants[p[AT.column_weights] : p[AT.column_weights] + width]
    scratch = p[AT.scratch] + thread * p[AT.scratch_size]
    even, odd = arena[scratch : scratch + width], arena[scratch + width : scratch + 2 * width]
    held_even = held_odd = -1  # the row of x, of all planes, that each buffer holds
    for item in range(begin, end):
        plane, i = item // height, item % height
        x = p[AT.x] + plane * p[AT.x_plane]
        start = p[AT.y] + plane * p[AT.y_plane] + i * width
        y = arena[start : start + width]
        upper, lower = index[p[AT.rows] + i], index[p[AT.rows] + height + i]
        if not p[AT.is_blend]:
            _pick(arena[x + upper * p[AT.width] : x + (upper + 1) * p[AT.width]], y, left)
            continue
        for row in (upper, lower):
            number = plane * p[AT.x_plane] + row
            source = arena[x + row * p[AT.width] : x + (row + 1) * p[AT.width]]
            if row % 2 and held_odd != number:
                _blend_columns(source, odd, left, right, weights)
                held_odd = number
            elif row % 2 == 0 and held_even != number:
                _blend_columns(source, even, left, right, weights)
                held_even = number
        weight = constants[p[AT.row_weights] + i]
        if upper % 2:
            _blend_rows(odd, odd if lower == upper else even, y, weight)
        else:
            _blend_rows(even, even if lower == upper else odd, y, weight)
