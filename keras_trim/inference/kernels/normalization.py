"""Normalization of groups of planes."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels.sums import sum_of, sum_of_squares
from keras_trim.inference.kernels.threads import share

X, Y, PLANE, PIXELS, BATCH, GROUPS, WIDTH, GAMMA, BETA = range(1, 10)


@njit(nogil=True, boundscheck=False, error_model="numpy")
def _scale(x, y, scale, center, shift):
    for i in range(y.size):
        y[i] = (x[i] - center) * scale + shift


@njit(nogil=True, boundscheck=False, error_model="numpy")
def group_norm(p, f, arena, constants, thread, num_threads):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta of each group of `WIDTH` planes."""
    begin, end = share(p[BATCH] * p[GROUPS], thread, num_threads)
    plane, pixels, width = p[PLANE], p[PIXELS], p[WIDTH]
    for item in range(begin, end):
        x, y = p[X] + item * width * plane, p[Y] + item * width * plane
        mean = 0.0
        for i in range(width):
            mean += sum_of(arena[x + i * plane : x + i * plane + pixels])
        mean /= width * pixels
        center = np.float32(mean)
        square = 0.0
        for i in range(width):
            square += sum_of_squares(arena[x + i * plane : x + i * plane + pixels], mean)
        deviation = np.sqrt(square / (width * pixels) + f[0])
        first = item % p[GROUPS] * width
        for i in range(width):
            start = i * plane
            _scale(
                arena[x + start : x + start + pixels],
                arena[y + start : y + start + pixels],
                np.float32(constants[p[GAMMA] + first + i] / deviation),
                center,
                constants[p[BETA] + first + i],
            )
