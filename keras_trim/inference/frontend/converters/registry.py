"""The registry of converters, and helpers for them."""

import importlib

import numpy as np
from keras import ops

_CONVERTERS = {}  # Keras class -> function


class Unsupported(Exception):  # noqa: N818
    """A converter does not support this layer's configuration; the layer will run in Keras."""


def converts(*classes):
    """Registers a function `(layer, reader, *args, **kwargs) -> Symbol` for Keras classes."""

    def register(function):
        _CONVERTERS.update(dict.fromkeys(classes, function))
        return function

    return register


def keras_operations(module, *names):
    """Operation classes of `keras.ops` (`x + y` in a functional model); Keras does not export them.

    Leaves out classes that this version of Keras lacks.
    """
    module = importlib.import_module(f"keras.src.ops.{module}")
    return [getattr(module, name) for name in names if hasattr(module, name)]


def find_converter(operation):
    """The converter for a layer or operation, or None.

    A subclass gets its parent's converter only if it inherits `call` and `__call__`.
    """
    for cls in type(operation).__mro__:
        if cls in _CONVERTERS:
            same = type(operation).call is cls.call and type(operation).__call__ is cls.__call__
            return _CONVERTERS[cls] if same else None
    return None


def array(variable):
    """A variable's value as a float32 array."""
    return np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))


def bias_of(layer, channels):
    """A layer's bias, or zeros if it has none."""
    return array(layer.bias) if layer.use_bias else np.zeros(channels, np.float32)


def only(condition, reason):
    """Raises `Unsupported` unless a condition holds."""
    if not condition:
        raise Unsupported(reason)
