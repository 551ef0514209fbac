"""Converts activation functions and layers."""

import keras
from keras import layers

from keras_trim.inference.frontend.converters.registry import Unsupported, converts, only
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.operations.strided import LARGEST_RANK

INFINITY = float("inf")
# PyTorch's shrink functions keep NaN; on other backends, NaN fails the comparison and becomes 0.
KEEPS_NAN = float(keras.backend.backend() == "torch")
_FUNCTIONS = {
    "relu": ("clip", 0.0, INFINITY),
    "relu6": ("clip", 0.0, 6.0),
    "leaky_relu": ("leaky_relu", 0.2, 0.0),
    "elu": ("elu", 1.0, 0.0),
    "selu": ("selu", 0.0, 0.0),
    "sigmoid": ("sigmoid", 0.0, 0.0),
    "tanh": ("tanh", 0.0, 0.0),
    "silu": ("silu", 0.0, 0.0),
    "gelu": ("gelu", 0.0, 0.0),
    "hard_sigmoid": ("hard_sigmoid", 0.0, 0.0),
    "hard_silu": ("hard_silu", 0.0, 0.0),
    "exponential": ("exponential", 0.0, 0.0),
    "softplus": ("softplus", 0.0, 0.0),
    "softsign": ("softsign", 0.0, 0.0),
    "celu": ("celu", 1.0, 0.0),
    "hard_shrink": ("hard_shrink", 0.5, KEEPS_NAN),
    "hard_tanh": ("clip", -1.0, 1.0),
    "log_sigmoid": ("log_sigmoid", 0.0, 0.0),
    "mish": ("mish", 0.0, 0.0),
    "soft_shrink": ("soft_shrink", 0.5, KEEPS_NAN),
    "tanh_shrink": ("tanh_shrink", 0.0, 0.0),
}


def known_activation(activation):
    """The engine's name and two parameters of a Keras activation, or None if it has no kernel."""
    for name, function in _FUNCTIONS.items():
        if activation is getattr(keras.activations, name, None):
            return function
    return None


def activate(activation, reader, x, name):
    """Applies an activation function (or layer) to a symbol."""
    if activation is None or activation is keras.activations.linear:
        return x
    if isinstance(activation, layers.Layer):
        if not activation.built:  # Keras builds it only when it first computes something
            activation(keras.KerasTensor(x.shape, x.dtype))
        return reader.call(activation, x)
    if activation in (keras.activations.softmax, keras.activations.log_softmax):
        return add_softmax(reader, x, -1, activation is keras.activations.log_softmax)
    known = known_activation(activation)
    if known is not None:
        return reader.add(operations.Activation(*known), [x], name)
    return reader.keras_call(activation, (x,), {}, name)


def add_softmax(reader, x, axis, is_log=False):
    """Adds a softmax over any axis."""
    only(isinstance(axis, int), "softmax over several axes")
    rank = len(x.shape)
    axis = axis % rank
    if axis == rank - 1:
        return reader.add(operations.Softmax(is_log), [x], reader.name)
    only(axis > 0 and rank <= LARGEST_RANK, "softmax over the batch axis")
    axes = [*range(rank)]
    axes[axis], axes[-1] = axes[-1], axes[axis]
    swap = operations.Permute(tuple(axes))
    x = reader.add(swap, [x], reader.name)
    y = reader.add(operations.Softmax(is_log), [x], reader.name)
    return reader.add(swap, [y], reader.name)


@converts(layers.Activation)
def _activation(layer, reader, x):
    return activate(layer.activation, reader, x, reader.name)


@converts(layers.ReLU)
def _relu(layer, reader, x):
    slope, threshold, top = float(layer.negative_slope), float(layer.threshold), layer.max_value
    top = INFINITY if top is None else float(top)
    if slope == 0 and threshold == 0:
        return reader.add(operations.Activation("clip", 0.0, top), [x], reader.name)
    if slope and top < INFINITY:
        raise Unsupported("ReLU with a slope and a maximum")
    if threshold == 0:
        return reader.add(operations.Activation("leaky_relu", slope), [x], reader.name)
    only(top == INFINITY, "ReLU with a threshold and a maximum")
    return reader.add(operations.Activation("threshold", threshold, slope), [x], reader.name)


@converts(layers.LeakyReLU)
def _leaky_relu(layer, reader, x):
    return reader.add(
        operations.Activation("leaky_relu", float(layer.negative_slope)), [x], reader.name
    )


@converts(layers.ELU)
def _elu(layer, reader, x):
    return reader.add(operations.Activation("elu", float(layer.alpha)), [x], reader.name)


@converts(layers.Softmax)
def _softmax(layer, reader, x, mask=None):
    only(mask is None, "a mask")
    return add_softmax(reader, x, layer.axis)
