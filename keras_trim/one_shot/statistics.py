"""Batch normalization's mean and variance, of the examples at hand."""

import numpy as np
from keras import layers

from keras_trim.one_shot.products import to_numpy


def normalizations(model):
    """List of the layers of a model that have statistics which training moves."""
    return [x for x in model._flatten_layers() if isinstance(x, layers.BatchNormalization)]


def statistics(layer, inputs):
    """Mean and variance of what a batch normalization is called with.

    Args:
        layer: `keras.layers.BatchNormalization`.
        inputs: Iterable of lists of tensors: of each batch, each call.

    Returns:
        Tuple of two float64 arrays (channels,).
    """
    count, mean, squares = 0, 0.0, 0.0
    for calls in inputs:
        for x in calls:
            x = np.moveaxis(to_numpy(x), layer.axis, -1)
            x = x.reshape(-1, x.shape[-1])
            # Batches are put together about their means: squares of large numbers would cancel.
            own = x.mean(0)
            delta, total = own - mean, count + len(x)
            squares = squares + ((x - own) ** 2).sum(0) + delta**2 * count * len(x) / total
            mean, count = mean + delta * len(x) / total, total
    return mean, squares / count
