"""The registry of converters, and helpers for them."""

import importlib
import itertools

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

    A subclass gets its parent's converter only if it computes the same: it overrides no method that
    the parent's `call` may use, such as `convolution_op` of convolutions.
    """
    for cls in type(operation).__mro__:
        if cls in _CONVERTERS:
            return None if _overrides(type(operation), cls) else _CONVERTERS[cls]
    return None


# Methods without influence on what a built layer computes. Masks are asked of the layer itself.
_HARMLESS = {
    *("__init__", "__init_subclass__", "__new__", "__repr__", "get_config", "from_config"),
    *("build", "build_from_config", "get_build_config", "add_weight", "quantize", "enable_lora"),
    *("compute_mask", "compute_output_shape", "compute_output_spec"),
    *("save_own_variables", "load_own_variables", "save_assets", "load_assets"),
}


def _overrides(subclass, parent):
    """Whether a subclass overrides a method of its parent that may change what it computes."""
    between = itertools.takewhile(lambda cls: cls is not parent, subclass.__mro__)
    names = {
        name
        for cls in between
        for name, value in vars(cls).items()
        if callable(value) and not isinstance(value, type)
    }
    return any(hasattr(parent, name) for name in names - _HARMLESS)


def array(variable):
    """A variable's value as a float32 array."""
    values = np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))
    only(values.size, "a weight without elements")  # kernels take at least one
    return values


def bias_of(layer, channels):
    """A layer's bias, or zeros if it has none."""
    return array(layer.bias) if layer.use_bias else np.zeros(channels, np.float32)


def only(condition, reason):
    """Raises `Unsupported` unless a condition holds."""
    if not condition:
        raise Unsupported(reason)
