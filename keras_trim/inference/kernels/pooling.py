"""Pooling over planes, within windows and over all pixels."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels.padding import pad_plane
from keras_trim.inference.kernels.threads import share

(
    X, X_SAMPLE, X_PLANE, Y, Y_SAMPLE, Y_PLANE, BATCH, CHANNELS, HEIGHT, WIDTH, OUT_HEIGHT,
    OUT_WIDTH, TOP, LEFT, STRIDE_Y, STRIDE_X, ROWS, ROW, OFFSETS, TAPS, SCRATCH, SCRATCH_SIZE,
    PADDED_PLANE, IS_MAX, WEIGHTS, PHASES_Y, PHASES_X,
) = range(1, 28)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _max_into(sums, x):
    for i in range(sums.size):
        a, b = sums[i], x[i]
        sums[i] = b if b > a or b != b else a


@njit(nogil=True, boundscheck=False)
def _add_into(sums, x):
    for i in range(sums.size):
        sums[i] += x[i]


@njit(nogil=True, boundscheck=False)
def pool(p, f, arena, constants, index, thread, num_threads):
    """Maximum or mean of each window; the mean counts only pixels inside the image."""
    begin, end = share(p[BATCH] * p[CHANNELS], thread, num_threads)
    row, width, height = p[ROW], p[OUT_WIDTH], p[OUT_HEIGHT]
    padded = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    start = padded + p[PHASES_Y] * p[PHASES_X] * p[PADDED_PLANE]
    pixels = height * row
    sums = arena[start : start + pixels]
    for item in range(begin, end):
        sample, channel = item // p[CHANNELS], item % p[CHANNELS]
        pad_plane(
            arena, p[X] + sample * p[X_SAMPLE] + channel * p[X_PLANE], p[HEIGHT], p[WIDTH],
            padded, p[PADDED_PLANE], p[ROWS], row, p[TOP], p[LEFT],
            p[STRIDE_Y], p[STRIDE_X], 1, 1, p[PHASES_Y], p[PHASES_X], f[0],
        )  # fmt: skip
        first = padded + index[p[OFFSETS]]
        sums[:] = arena[first : first + pixels]
        for tap in range(1, p[TAPS]):
            shifted = padded + index[p[OFFSETS] + tap]
            if p[IS_MAX]:
                _max_into(sums, arena[shifted : shifted + pixels])
            else:
                _add_into(sums, arena[shifted : shifted + pixels])
        y = p[Y] + sample * p[Y_SAMPLE] + channel * p[Y_PLANE]
        for line in range(height):
            if p[IS_MAX]:
                for i in range(width):
                    arena[y + line * width + i] = sums[line * row + i]
            else:
                weights = p[WEIGHTS] + line * width
                for i in range(width):
                    arena[y + line * width + i] = sums[line * row + i] * constants[weights + i]


GX, GX_SAMPLE, GX_PLANE, GY, GBATCH, GCHANNELS, GPIXELS, GIS_MAX = range(1, 9)


@njit(nogil=True, boundscheck=False)
def global_pool(p, f, arena, thread, num_threads):
    """Mean or maximum of each plane."""
    begin, end = share(p[GBATCH] * p[GCHANNELS], thread, num_threads)
    pixels = p[GPIXELS]
    for item in range(begin, end):
        sample, channel = item // p[GCHANNELS], item % p[GCHANNELS]
        start = p[GX] + sample * p[GX_SAMPLE] + channel * p[GX_PLANE]
        if p[GIS_MAX]:
            total = arena[start]
            for i in range(1, pixels):
                value = arena[start + i]
                total = value if value > total or value != value else total
            arena[p[GY] + item] = total
        else:
            # Eight sums: one alone waits for each addition.
            a = b = c = d = np.float32(0)
            a2 = b2 = c2 = d2 = np.float32(0)
            i = 0
            while i + 8 <= pixels:
                a += arena[start + i]
                b += arena[start + i + 1]
                c += arena[start + i + 2]
                d += arena[start + i + 3]
                a2 += arena[start + i + 4]
                b2 += arena[start + i + 5]
                c2 += arena[start + i + 6]
                d2 += arena[start + i + 7]
                i += 8
            while i < pixels:
                a += arena[start + i]
                i += 1
            total = ((a + b) + (c + d)) + ((a2 + b2) + (c2 + d2))
            arena[p[GY] + item] = total / np.float32(pixels)
