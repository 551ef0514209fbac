"""Estimates the statistics of batch normalization on examples."""

import math

import numpy as np
from keras import layers

from keras_trim.one_shot.masks import all_padding, to_bool
from keras_trim.one_shot.moments import SLICE
from keras_trim.one_shot.product import to_numpy


def normalizations(model):
    """List of the batch normalization layers of a model."""
    return [x for x in model._flatten_layers() if isinstance(x, layers.BatchNormalization)]


class Statistics:
    """Mean and variance of the inputs of a batch normalization, without padding.

    Args:
        layer: `keras.layers.BatchNormalization`.
    """

    def __init__(self, layer):
        self._layer = layer
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, calls):
        """Adds the inputs of a list of `Call`."""
        for call in calls:
            step = max(1, SLICE // max(8 * math.prod(call.x.shape[1:]), 1))
            for start in range(0, call.x.shape[0], step):
                part = slice(start, start + step)
                self._add(call.x[part], None if call.mask is None else call.mask[part])

    def _add(self, x, mask):
        x = np.moveaxis(to_numpy(x), self._layer.axis, -1)
        # A mask has the leading axes of the input. Those of other layouts are no longer leading.
        if mask is not None and self._layer.axis % x.ndim == x.ndim - 1:
            x = x[to_bool(mask)]
        x = x.reshape(-1, x.shape[-1])
        if not len(x):
            return
        # Combines centered sums: a difference of large raw sums of squares loses precision.
        mean = x.mean(0)
        delta, total = mean - self._mean, self._count + len(x)
        self._squares += ((x - mean) ** 2).sum(0) + delta**2 * self._count * len(x) / total
        self._mean += delta * len(x) / total
        self._count = total

    def result(self):
        """Returns a tuple of two float64 arrays (channels,): mean and variance.

        Raises:
            ValueError: if all inputs were padding, or if there was only one.
        """
        if not self._count:
            raise all_padding(self._layer)
        if self._count == 1:  # the variance would be 0
            raise ValueError(
                "`calibration_data` has one example, which has no variance: pass a few hundred, or "
                "pass `update_statistics=False`. Received: one input of "
                f"'{self._layer.name}'"
            )
        return self._mean, self._squares / self._count


def moved(layer, dense, sparse):
    """The statistics of a batch normalization, changed as pruning changed those of the examples.

    Where pruning changed nothing, the statistics stay as they are. So they keep what they have from
    the training data, for example from its augmentation.

    Args:
        layer: `keras.layers.BatchNormalization`, with the statistics of the dense model.
        dense, sparse: Tuples of two float64 arrays (channels,): mean and variance of the layer's
            inputs in the dense and in the pruned model.

    Returns:
        Tuple of two float64 arrays (channels,).
    """
    mean, variance = (to_numpy(x) for x in (layer.moving_mean, layer.moving_variance))
    (dense_mean, dense_variance), (sparse_mean, sparse_variance) = dense, sparse
    # Scales what the layer divides by. A channel that hardly varies on the examples hardly changes.
    scale = (sparse_variance + layer.epsilon) / (dense_variance + layer.epsilon)
    variance = np.maximum((variance + layer.epsilon) * scale - layer.epsilon, 0)
    return mean + sparse_mean - dense_mean, variance
