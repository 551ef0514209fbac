"""Products of weights with single rows, where reading the weights is the limit; row-wise functions."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels import scalars
from keras_trim.inference.kernels.threads import share

_F = np.float32

(X, X_ROW, Y, Y_ROW, BATCH, OUTPUTS, STARTS, COLUMNS, VALUES, BIAS, FLAGS, INPUTS) = range(1, 13)
CLIP = 2


@njit(nogil=True, boundscheck=False, inline="always")
def sparse_dot(values, columns, x, value, column, x_start, count):
    """Sum of `count` products. Four sums, as one alone would wait for each addition."""
    a = b = c = d = _F(0)
    i = 0
    while i + 4 <= count:
        a += values[value + i] * x[x_start + columns[column + i]]
        b += values[value + i + 1] * x[x_start + columns[column + i + 1]]
        c += values[value + i + 2] * x[x_start + columns[column + i + 2]]
        d += values[value + i + 3] * x[x_start + columns[column + i + 3]]
        i += 4
    while i < count:
        a += values[value + i] * x[x_start + columns[column + i]]
        i += 1
    return (a + b) + (c + d)


@njit(nogil=True, boundscheck=False)
def sparse_rows(p, f, arena, constants, index, short_index, thread, num_threads):
    """y[n, o] = clip(weights[o, :] . x[n, :] + bias[o]); weights in compressed sparse rows.

    Rows of weights are shared out by their number of non-zeros.
    """
    outputs, starts = p[OUTPUTS], p[STARTS]
    total = index[starts + outputs]
    first, last = share(total, thread, num_threads)
    begin = np.searchsorted(index[starts : starts + outputs], first) if thread else 0
    end = outputs
    if thread < num_threads - 1:
        end = np.searchsorted(index[starts : starts + outputs], last)
    for n in range(p[BATCH]):
        x, y = p[X] + n * p[X_ROW], p[Y] + n * p[Y_ROW]
        for o in range(begin, end):
            k = index[starts + o]
            total = sparse_dot(
                constants, short_index, arena, p[VALUES] + k, p[COLUMNS] + k, x,
                index[starts + o + 1] - k,
            )  # fmt: skip
            total += constants[p[BIAS] + o]
            if p[FLAGS] & CLIP:
                total = f[0] if total < f[0] else total
                total = f[1] if total > f[1] else total
            arena[y + o] = total


@njit(nogil=True, boundscheck=False)
def _add_scaled(y, x, factors, start, stride):
    a, b, c, d = (
        factors[0],
        factors[1],
        factors[2],
        factors[3],
    )
    for o in range(y.size):
        y[o] += (
            a * x[start + o]
            + b * x[start + stride + o]
            + c * x[start + 2 * stride + o]
            + d * x[start + 3 * stride + o]
        )


@njit(nogil=True, boundscheck=False)
def dense_rows(p, f, arena, constants, thread, num_threads):
    """The same with all weights present, stored as (inputs, outputs)."""
    outputs, inputs = p[OUTPUTS], p[INPUTS]
    blocks = (outputs + 15) // 16
    first, last = share(blocks, thread, num_threads)
    begin, end = first * 16, min(last * 16, outputs)
    if begin >= end:
        return
    for n in range(p[BATCH]):
        x = p[X] + n * p[X_ROW]
        y = arena[p[Y] + n * p[Y_ROW] + begin : p[Y] + n * p[Y_ROW] + end]
        y[:] = constants[p[BIAS] + begin : p[BIAS] + end]
        i = 0
        while i + 4 <= inputs:
            _add_scaled(
                y, constants, arena[x + i : x + i + 4], p[VALUES] + i * outputs + begin, outputs
            )
            i += 4
        while i < inputs:
            factor, row = arena[x + i], p[VALUES] + i * outputs + begin
            for o in range(end - begin):
                y[o] += factor * constants[row + o]
            i += 1
        if p[FLAGS] & CLIP:
            for o in range(end - begin):
                v = y[o]
                v = f[0] if v < f[0] else v
                y[o] = f[1] if v > f[1] else v


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
        total = _F(0)
        for i in range(width):
            total += y[i]
        if p[SLOG]:
            shift = largest + np.log(total)
            for i in range(width):
                y[i] = x[i] - shift
        else:
            for i in range(width):
                y[i] /= total


LX, LY, LROWS, LWIDTH, LGAMMA, LBETA, LRMS = range(1, 8)


@njit(nogil=True, boundscheck=False)
def layer_norm(p, f, arena, constants, thread, num_threads):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta of each row; RMS without the mean."""
    begin, end = share(p[LROWS], thread, num_threads)
    width = p[LWIDTH]
    for n in range(begin, end):
        x = arena[p[LX] + n * width : p[LX] + (n + 1) * width]
        y = arena[p[LY] + n * width : p[LY] + (n + 1) * width]
        mean = 0.0
        if not p[LRMS]:
            for i in range(width):
                mean += x[i]
            mean /= width
        square = 0.0
        for i in range(width):
            d = x[i] - mean
            square += d * d
        scale = _F(1.0 / np.sqrt(square / width + f[0]))
        center = _F(mean)
        for i in range(width):
            y[i] = (x[i] - center) * scale * constants[p[LGAMMA] + i] + constants[p[LBETA] + i]
