"""Estimates the statistics of batch normalization on examples."""

import numpy as np
from keras import layers

from keras_trim.one_shot.masks import all_padding, to_bool
from keras_trim.one_shot.product import to_numpy


def normalizations(model):
    """List of the batch normalization layers of a model."""
    return [x for x in model._flatten_layers() if isinstance(x, layers.BatchNormalization)]


def statistics(layer, inputs):
    """Mean and variance of the inputs of a batch normalization, without padding.

    Args:
        layer: `keras.layers.BatchNormalization`.
        inputs: Iterable of lists of `Call`: per batch, its calls.

    Returns:
        Tuple of two float64 arrays (channels,).

    Raises:
        ValueError: if all inputs are padding, or if there is only one.
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
            # Combines centered sums: a difference of large raw sums of squares loses precision.
            own = x.mean(0)
            delta, total = own - mean, count + len(x)
            squares = squares + ((x - own) ** 2).sum(0) + delta**2 * count * len(x) / total
            mean, count = mean + delta * len(x) / total, total
    if not count:
        raise all_padding(layer)
    if count == 1:  # the variance would be 0
        raise ValueError(
            "`calibration_data` has one example, which has no variance: give some hundred, or pass "
            f"`update_statistics=False`. Received: one input of '{layer.name}'"
        )
    return mean, squares / count
