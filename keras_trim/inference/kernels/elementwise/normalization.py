"""Normalization of rows and of groups of planes, and softmax."""

import numpy as np

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.elementwise import scalars
from keras_trim.inference.kernels.elementwise.sums import sum_of, sum_of_squares
from keras_trim.inference.kernels.instructions import GROUP_NORM, LAYER_NORM, SOFTMAX, executes
from keras_trim.inference.kernels.work_sharing import share

_GROUP, _LAYER, _SOFTMAX = GROUP_NORM.at, LAYER_NORM.at, SOFTMAX.at


@inner(error_model="numpy")
def _scale(x, y, scale, center, shift):
    for i in range(y.size):
        y[i] = (x[i] - center) * scale + shift


@executes(GROUP_NORM)
@inner(error_model="numpy")
def group_norm(p, f, arena, constants, thread, num_threads):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta of each group of `width` planes."""
    begin, end = share(p[_GROUP.batch] * p[_GROUP.groups], thread, num_threads)
    plane, pixels, width = p[_GROUP.plane], p[_GROUP.pixels], p[_GROUP.width]
    for item in range(begin, end):
        x, y = p[_GROUP.x] + item * width * plane, p[_GROUP.y] + item * width * plane
        mean = 0.0
        for i in range(width):
            mean += sum_of(arena[x + i * plane : x + i * plane + pixels])
        mean /= width * pixels
        center = np.float32(mean)
        square = 0.0
        for i in range(width):
            square += sum_of_squares(arena[x + i * plane : x + i * plane + pixels], mean)
        deviation = np.sqrt(square / (width * pixels) + f[_GROUP.epsilon])
        first = item % p[_GROUP.groups] * width
        for i in range(width):
            start = i * plane
            _scale(
                arena[x + start : x + start + pixels],
                arena[y + start : y + start + pixels],
                np.float32(constants[p[_GROUP.gamma] + first + i] / deviation),
                center,
                constants[p[_GROUP.beta] + first + i],
            )


@executes(SOFTMAX)
@inner
def softmax(p, arena, thread, num_threads):
    """Softmax of each row (its logarithm with `is_log`)."""
    begin, end = share(p[_SOFTMAX.rows], thread, num_threads)
    width = p[_SOFTMAX.width]
    for n in range(begin, end):
        x = arena[p[_SOFTMAX.x] + n * width : p[_SOFTMAX.x] + (n + 1) * width]
        y = arena[p[_SOFTMAX.y] + n * width : p[_SOFTMAX.y] + (n + 1) * width]
        largest = x[0]
        for i in range(1, width):
            largest = x[i] if x[i] > largest or x[i] != x[i] else largest
        for i in range(width):
            y[i] = scalars.exp(x[i] - largest)
        total = np.float32(sum_of(y))
        if p[_SOFTMAX.is_log]:
            log_total = np.log(total)
            for i in range(width):  # in this order: next to a large x, the logarithm would be lost
                y[i] = (x[i] - largest) - log_total
        else:
            for i in range(width):
                y[i] /= total


@executes(LAYER_NORM)
@inner(error_model="numpy")
def layer_norm(p, f, arena, constants, thread, num_threads):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta of each row; RMS without the mean."""
    begin, end = share(p[_LAYER.rows], thread, num_threads)
    width = p[_LAYER.width]
    for n in range(begin, end):
        x = arena[p[_LAYER.x] + n * width : p[_LAYER.x] + (n + 1) * width]
        y = arena[p[_LAYER.y] + n * width : p[_LAYER.y] + (n + 1) * width]
        mean = 0.0 if p[_LAYER.is_rms] else sum_of(x) / width
        scale = np.float32(1.0 / np.sqrt(sum_of_squares(x, mean) / width + f[_LAYER.epsilon]))
        center = np.float32(mean)
        gamma = constants[p[_LAYER.gamma] : p[_LAYER.gamma] + width]
        beta = constants[p[_LAYER.beta] : p[_LAYER.beta] + width]
        for i in range(width):
            y[i] = (x[i] - center) * scale * gamma[i] + beta[i]
