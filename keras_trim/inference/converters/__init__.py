"""From Keras layers to operations of the engine, one function per kind of layer."""

from keras_trim.inference.converters import activation, convolution, core, shaping  # noqa: F401
from keras_trim.inference.converters.registry import Unsupported, find_converter

__all__ = ["Unsupported", "find_converter"]
