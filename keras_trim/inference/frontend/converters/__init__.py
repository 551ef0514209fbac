"""Converts Keras layers to the engine's operations, one function per kind of layer."""

from keras_trim.inference.frontend.converters import (  # noqa: F401
    activation,
    arithmetic,
    attention,
    convolution,
    core,
    indexing,
    logic,
    merging,
    normalization,
    recurrent,
    reductions,
    shaping,
)
from keras_trim.inference.frontend.converters.registry import Unsupported, find_converter

__all__ = ["Unsupported", "find_converter"]
