"""Pooling over all pixels of a plane."""

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import GLOBAL_POOL, executes
from keras_trim.inference.kernels.pooling.reductions import plane_total
from keras_trim.inference.kernels.work_sharing import share

AT = GLOBAL_POOL.at

_BLOCK = 1024  # pixels to sum in float32; many equal numbers would all round the same way

_sum_of, _maximum_of = plane_total("sum"), plane_total("maximum")


@executes(GLOBAL_POOL)
@inner
def global_pool(p, f, arena, thread, num_threads):
    """y = mean or maximum of each plane."""
    begin, end = share(p[AT.batch] * p[AT.channels], thread, num_threads)
    channels, pixels = p[AT.channels], p[AT.pixels]
    base = arena.ctypes.data
    for item in range(begin, end):
        sample = item // channels if item >= channels else 0
        x = p[AT.x] + sample * p[AT.x_sample] + (item - sample * channels) * p[AT.x_plane]
        y = p[AT.y] + item
        if p[AT.is_max]:
            _maximum_of(base + 4 * x, pixels, base + 4 * y)
        else:
            total = 0.0
            for first in range(0, pixels, _BLOCK):
                count = min(_BLOCK, pixels - first)
                _sum_of(base + 4 * (x + first), count, base + 4 * y)
                total += arena[y]
            arena[y] = total / pixels
