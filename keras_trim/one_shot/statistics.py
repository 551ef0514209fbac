"""Batch normalization's mean and variance, of the examples at hand."""

import numpy as np
from keras import layers

from keras_trim.one_shot.masks import all_padding, to_bool
from keras_trim.one_shot.product import to_numpy


def normalizations(model):
    """List of the layers of a model that have statistics which training moves."""
    return [x for x in model._flatten_layers() if isinstance(x, layers.BatchNormalization)]


def statistics(layer, inputs):
    """Mean and variance of what a batch normalization is called with.

    Args:
        layer: `keras.layers.BatchNormalization`.
        inputs: Iterable of lists of `Call`: of each batch, each call. Padding does not count.

    Returns:
        Tuple of two float64 arrays (channels,).
    """
    count, mean, squares = 0, 0.0, 0.0
    for calls in inputs:
        for call in calls:
            x = np.moveaxis(to_numpy(call.x), layer.axis, -1)
            if call.mask is not None and len(call.mask.shape) == x.ndim - 1:
                x = x[to_bool(call.mask)]
            x = x.reshape(-1, x.shape[-1])
            if not len(x):
                continue
            # Batches are put together about their means: squares of large numbers would cancel.
            own = x.mean(0)
            delta, total = own - mean, count + len(x)
            squares = squares + ((x - own) ** 2).sum(0) + delta**2 * count * len(x) / total
            mean, count = mean + delta * len(x) / total, total
    if not count:
        raise all_padding(layer)
    return mean, squares / count
