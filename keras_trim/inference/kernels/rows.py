"""Products of weights with single rows, limited by reading the weights; row-wise functions."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels import scalars
from keras_trim.inference.kernels.lookup import IS_AVAILABLE, ROWS, lookup_dots
from keras_trim.inference.kernels.matvec import DENSE_VECTORS, dense_dots, sparse_dots
from keras_trim.inference.kernels.sums import sum_of, sum_of_squares
from keras_trim.inference.kernels.threads import share
from keras_trim.inference.kernels.vector import CLIP, LANES

_F = np.float32

_sparse_dots = sparse_dots()
_lookup_dots = lookup_dots() if IS_AVAILABLE else None
_dense_1, _dense_2, _dense_4, _dense_8 = (dense_dots(vectors) for vectors in DENSE_VECTORS)

(
    X, X_ROW, Y, Y_ROW, BATCH, OUTPUTS, STARTS, COLUMNS, VALUES, BIAS, FLAGS, INPUTS, VECTORS,
    PLACES,
) = range(1, 15)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _share_stretches(starts, count, thread, num_threads):
    """The range of stretches that a thread computes, as long as any other thread's in sum.

    Args:
        starts: Array of int32, (at least count + 1,), where each stretch begins.
        count: Integer.
    """
    first, last = share(starts[count], thread, num_threads)
    begin = np.searchsorted(starts[:count], first) if thread else 0
    end = np.searchsorted(starts[:count], last) if thread < num_threads - 1 else count
    return begin, end


@njit(nogil=True, boundscheck=False)
def sparse_rows(p, f, arena, constants, index, short_index, thread, num_threads):
    """y[n, o] = clip(weights[o, :] . x[n, :] + bias[o]); weights in compressed sparse rows.

    Rows of weights are shared out by their number of non-zeros.
    """
    outputs, starts = p[OUTPUTS], p[STARTS]
    begin, end = _share_stretches(index[starts:], outputs, thread, num_threads)
    for n in range(p[BATCH]):
        _sparse_dots(
            arena.ctypes.data + 4 * (p[X] + n * p[X_ROW]),
            short_index.ctypes.data + 2 * p[COLUMNS],
            constants.ctypes.data + 4 * p[VALUES],
            index.ctypes.data + 4 * (starts + begin),
            end - begin,
            arena.ctypes.data + 4 * (p[Y] + n * p[Y_ROW] + begin),
            constants.ctypes.data + 4 * (p[BIAS] + begin),
            p[FLAGS], f[0], f[1],
        )  # fmt: skip


@njit(nogil=True, boundscheck=False)
def lookup_rows(p, f, arena, constants, index, short_index, thread, num_threads):
    """The same, the weights packed for `lookup_dots`."""
    outputs, starts = p[OUTPUTS], p[STARTS]
    groups = (outputs + ROWS - 1) // ROWS
    begin, end = _share_stretches(index[starts:], groups, thread, num_threads)
    for n in range(p[BATCH]):
        _lookup_dots(
            arena.ctypes.data + 4 * (p[X] + n * p[X_ROW]),
            short_index.ctypes.data + 2 * p[COLUMNS],
            short_index.ctypes.data + 2 * p[PLACES],
            constants.ctypes.data + 4 * p[VALUES],
            index.ctypes.data + 4 * (starts + begin),
            end - begin,
            arena.ctypes.data + 4 * (p[Y] + n * p[Y_ROW] + begin * ROWS),
            constants.ctypes.data + 4 * (p[BIAS] + begin * ROWS),
            outputs - begin * ROWS,
            p[FLAGS], f[0], f[1],
        )  # fmt: skip


if not IS_AVAILABLE:

    @njit(nogil=True, boundscheck=False)
    def lookup_rows(p, f, arena, constants, index, short_index, thread, num_threads):
        """Does nothing: no program has this instruction on this machine."""


@njit(nogil=True, boundscheck=False)
def dense_rows(p, f, arena, constants, thread, num_threads):
    """The same with all weights present, in blocks of `VECTORS` vectors of outputs."""
    width = p[VECTORS] * LANES
    begin, end = share((p[OUTPUTS] + width - 1) // width, thread, num_threads)
    for block in range(begin, end):
        start = block * width
        weights = constants.ctypes.data + 4 * (p[VALUES] + start * p[INPUTS])
        bias = constants.ctypes.data + 4 * (p[BIAS] + start)
        for n in range(p[BATCH]):
            x = arena.ctypes.data + 4 * (p[X] + n * p[X_ROW])
            y = arena.ctypes.data + 4 * (p[Y] + n * p[Y_ROW] + start)
            a = (
                x, weights, p[INPUTS], y, p[OUTPUTS] - start, bias, p[FLAGS] & CLIP, f[0], f[1],
            )  # fmt: skip
            if p[VECTORS] == 8:
                _dense_8(*a)
            elif p[VECTORS] == 4:
                _dense_4(*a)
            elif p[VECTORS] == 2:
                _dense_2(*a)
            else:
                _dense_1(*a)


SX, SY, SROWS, SWIDTH, SLOG = range(1, 6)


@njit(nogil=True, boundscheck=False)
def softmax(p, arena, thread, num_threads):
    """Softmax of each row (its logarithm with SLOG)."""
    begin, end = share(p[SROWS], thread, num_threads)
    width = p[SWIDTH]
    for n in range(begin, end):
        x = arena[p[SX] + n * width : p[SX] + (n + 1) * width]
        y = arena[p[SY] + n * width : p[SY] + (n + 1) * width]
        largest = x[0]
        for i in range(1, width):
            largest = x[i] if x[i] > largest or x[i] != x[i] else largest
        for i in range(width):
            y[i] = scalars.exp(x[i] - largest)
        total = _F(sum_of(y))
        if p[SLOG]:
            shift = largest + np.log(total)
            for i in range(width):
                y[i] = x[i] - shift
        else:
            for i in range(width):
                y[i] /= total


LX, LY, LROWS, LWIDTH, LGAMMA, LBETA, LRMS = range(1, 8)


@njit(nogil=True, boundscheck=False, error_model="numpy")
def layer_norm(p, f, arena, constants, thread, num_threads):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta of each row; RMS without the mean."""
    begin, end = share(p[LROWS], thread, num_threads)
    width = p[LWIDTH]
    for n in range(begin, end):
        x = arena[p[LX] + n * width : p[LX] + (n + 1) * width]
        y = arena[p[LY] + n * width : p[LY] + (n + 1) * width]
        mean = 0.0 if p[LRMS] else sum_of(x) / width
        scale = _F(1.0 / np.sqrt(sum_of_squares(x, mean) / width + f[0]))
        center = _F(mean)
        gamma = constants[p[LGAMMA] : p[LGAMMA] + width]
        beta = constants[p[LBETA] : p[LBETA] + width]
        for i in range(width):
            y[i] = (x[i] - center) * scale * gamma[i] + beta[i]
