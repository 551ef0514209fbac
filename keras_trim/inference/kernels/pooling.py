"""Pooling over planes, within windows and over all pixels."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels.padding import pad_plane
from keras_trim.inference.kernels.planes import BATCH, CHANNELS, HEIGHT, OPERANDS, WIDTH, place
from keras_trim.inference.kernels.stencil import plane_total
from keras_trim.inference.kernels.threads import share, take
from keras_trim.inference.kernels.windows import window_plane

_sum_of, _maximum_of = plane_total("sum"), plane_total("maximum")

(
    OUT_HEIGHT, OUT_WIDTH, TOP, LEFT, STRIDE_Y, STRIDE_X, ROWS, ROW, OFFSETS, TAPS, SCRATCH,
    SCRATCH_SIZE, PADDED_PLANE, IS_MAX, WEIGHTS, PHASES_Y, PHASES_X, TOGETHER, NUMBER,
) = range(OPERANDS + 1, OPERANDS + 20)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _scale(y, weights):
    for i in range(y.size):
        y[i] *= weights[i]


@njit(nogil=True, boundscheck=False)
def pool(p, f, arena, constants, index, control, thread, num_threads):
    """Maximum or mean of each window; the mean counts only pixels inside the image."""
    planes, together = p[BATCH] * p[CHANNELS], p[TOGETHER]
    phases = p[PHASES_Y] * p[PHASES_X] * p[PADDED_PLANE]
    scratch = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    last_lines = scratch + together * phases
    pixels = p[OUT_HEIGHT] * p[OUT_WIDTH]
    begin, end = take(control, planes, together, thread, num_threads)
    while begin < end:
        for i in range(end - begin):
            x, _, _ = place(p, begin + i, 1)
            pad_plane(
                arena, x, p[HEIGHT], p[WIDTH], scratch + i * phases, p[PADDED_PLANE], p[ROWS],
                p[ROW], p[TOP], p[LEFT], p[STRIDE_Y], p[STRIDE_X], 1, 1, p[PHASES_Y], p[PHASES_X],
                f[0],
            )  # fmt: skip
        for i in range(end - begin):
            _, y, _ = place(p, begin + i, 1)
            window_plane(
                arena, scratch + i * phases, p[ROW], p[PADDED_PLANE], y, p[OUT_WIDTH],
                p[OUT_HEIGHT], p[NUMBER], index.ctypes.data + 4 * p[OFFSETS], p[TAPS], 0, 0, 0,
                f[0], f[0], last_lines,
            )  # fmt: skip
            if not p[IS_MAX]:
                _scale(arena[y : y + pixels], constants[p[WEIGHTS] : p[WEIGHTS] + pixels])
        begin, end = take(control, planes, together, thread, num_threads)


GX, GX_SAMPLE, GX_PLANE, GY, GBATCH, GCHANNELS, GPIXELS, GIS_MAX = range(1, 9)


@njit(nogil=True, boundscheck=False)
def global_pool(p, f, arena, thread, num_threads):
    """Mean or maximum of each plane."""
    begin, end = share(p[GBATCH] * p[GCHANNELS], thread, num_threads)
    channels, pixels = p[GCHANNELS], p[GPIXELS]
    base, scale = arena.ctypes.data, np.float32(1 / pixels)
    for item in range(begin, end):
        sample = item // channels if item >= channels else 0
        x = p[GX] + sample * p[GX_SAMPLE] + (item - sample * channels) * p[GX_PLANE]
        y = p[GY] + item
        if p[GIS_MAX]:
            _maximum_of(base + 4 * x, pixels, base + 4 * y)
        else:
            _sum_of(base + 4 * x, pixels, base + 4 * y)
            arena[y] *= scale
