"""Pooling over all pixels of a plane."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels.threads import share
from keras_trim.inference.kernels.totals import plane_total

_sum_of, _maximum_of = plane_total("sum"), plane_total("maximum")

X, X_SAMPLE, X_PLANE, Y, BATCH, CHANNELS, PIXELS, IS_MAX = range(1, 9)


@njit(nogil=True, boundscheck=False)
def global_pool(p, f, arena, thread, num_threads):
    """Mean or maximum of each plane."""
    begin, end = share(p[BATCH] * p[CHANNELS], thread, num_threads)
    channels, pixels = p[CHANNELS], p[PIXELS]
    base, scale = arena.ctypes.data, np.float32(1 / pixels)
    for item in range(begin, end):
        sample = item // channels if item >= channels else 0
        x = p[X] + sample * p[X_SAMPLE] + (item - sample * channels) * p[X_PLANE]
        y = p[Y] + item
        if p[IS_MAX]:
            _maximum_of(base + 4 * x, pixels, base + 4 * y)
        else:
            _sum_of(base + 4 * x, pixels, base + 4 * y)
            arena[y] *= scale
