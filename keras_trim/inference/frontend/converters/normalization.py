"""Converts layer, RMS, group and unit normalization."""

import math

import keras
import numpy as np
from keras import layers

from keras_trim.inference.frontend.converters.indexing import permute, reshape
from keras_trim.inference.frontend.converters.registry import (
    array,
    converts,
    keras_operations,
    only,
)
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.dtypes import is_float


def _axes(axis, rank):
    axes = [axis] if isinstance(axis, int) else axis
    return sorted(axis % rank for axis in axes)


def _order(axes, rank):
    """The permutation that moves some axes last, and its inverse."""
    order = [*(axis for axis in range(rank) if axis not in axes), *axes]
    return order, np.argsort(order).tolist()


def _normalize(reader, x, axes, gamma, beta, epsilon, is_rms=False):
    """Adds a normalization over some axes; gamma and beta have one value per element of these."""
    order, back = _order(axes, len(x.shape))
    only(axes[0] > 0, "the batch axis")
    only(is_float(x.dtype), "integers, which may overflow")
    is_last = order == list(range(len(x.shape)))
    x = x if is_last else permute(reader, x, order)
    lead, shape = x.shape[1 : -len(axes)], x.shape[-len(axes) :]
    only(None not in shape, "free axes")
    width = math.prod(shape)
    gamma = np.ones(width, np.float32) if gamma is None else array(gamma).reshape(-1)
    beta = np.zeros(width, np.float32) if beta is None else array(beta).reshape(-1)
    only(len(gamma) == len(beta) == width, "factors of another shape")
    x = x if len(axes) == 1 else reshape(reader, x, (*lead, width))
    operation = operations.LayerNormalization(gamma, beta, float(epsilon), is_rms)
    y = reader.add(operation, [x], reader.name)
    y = y if len(axes) == 1 else reshape(reader, y, (*lead, *shape))
    return y if is_last else permute(reader, y, back)


@converts(layers.LayerNormalization)
def _layer_normalization(layer, reader, x):
    only(not getattr(layer, "rms_scaling", False), "scaling without a mean")
    gamma, beta = layer.gamma if layer.scale else None, layer.beta if layer.center else None
    return _normalize(reader, x, _axes(layer.axis, len(x.shape)), gamma, beta, layer.epsilon)


@converts(layers.RMSNormalization)
def _rms_normalization(layer, reader, x):
    axes = _axes(layer.axis, len(x.shape))
    # Keras broadcasts the scale as it is, which works for the last axes only.
    only(axes[-1] == len(x.shape) - 1 and axes[0] == len(x.shape) - len(axes), "its axes")
    return _normalize(reader, x, axes, layer.scale, None, layer.epsilon, is_rms=True)


@converts(layers.GroupNormalization)
def _group_normalization(layer, reader, x):
    rank = len(x.shape)
    axis = layer.axis % rank
    channels = x.shape[axis]
    only(axis > 0, "the batch axis")
    only(is_float(x.dtype), "integers, which may overflow")
    gamma = array(layer.gamma) if layer.scale else np.ones(channels, np.float32)
    beta = array(layer.beta) if layer.center else np.zeros(channels, np.float32)
    # Moves the axis last, like `move_channels_last`, so that the moves cancel out.
    order, back = _order([axis], rank)
    x = x if axis == rank - 1 else permute(reader, x, order)
    x = x if rank > 2 else reshape(reader, x, (1, channels))
    operation = operations.GroupNormalization(gamma, beta, float(layer.epsilon), layer.groups)
    y = reader.add(operation, [x], reader.name)
    y = y if rank > 2 else reshape(reader, y, (channels,))
    return y if axis == rank - 1 else permute(reader, y, back)


@converts(layers.UnitNormalization)
def _unit_normalization(layer, reader, x):
    return _to_unit(reader, x, layer.axis, 1e-12)


@converts(*keras_operations("nn", "Normalize"))
def _to_unit_operation(operation, reader, x):
    only(operation.order == 2 and operation.axis is not None, "another norm")
    epsilon = keras.config.epsilon() if operation.epsilon is None else operation.epsilon
    return _to_unit(reader, x, operation.axis, epsilon)


def _to_unit(reader, x, axis, epsilon):
    axes = tuple(_axes(axis, len(x.shape)))
    only(axes[0] > 0, "the batch axis")
    only(is_float(x.dtype), "integers, which may overflow")
    y = reader.add(operations.Activation("square"), [x], reader.name)
    y = reader.add(operations.Reduce("sum", axes, True), [y], reader.name)
    y = reader.add(operations.Activation("rsqrt"), [y], reader.name)
    y = reader.add(operations.Activation("clip", 0.0, 1 / epsilon), [y], reader.name)
    return reader.add(operations.Binary("multiply"), [x, y], reader.name)
