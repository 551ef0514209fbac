"""Masks, and the operations by which Keras makes them within a functional model."""

import dataclasses

import numpy as np
from keras import layers
from keras.src.ops import numpy as numpy_operations  # Keras does not export these classes

from keras_trim.inference import operations
from keras_trim.inference.converters.registry import converts, only


@converts(layers.Masking)
def _masking(layer, reader, x):
    operation = operations.MaskValue(float(layer.mask_value))
    y, mask = reader.add_all(operation, [x], reader.name, [x.shape, x.shape[:-1]])
    return dataclasses.replace(y, mask=dataclasses.replace(mask, dtype="bool"))


@converts(numpy_operations.NotEqual)
def _not_equal(operation, reader, x, y):
    only(isinstance(x, reader.symbol) and isinstance(y, int | float | np.number), "two tensors")
    return reader.add(operations.NotEqual(y), [x], reader.name)


@converts(numpy_operations.Any)
def _any(operation, reader, x):
    only(operation.axis in (-1, [-1], (-1,)) and not operation.keepdims, "other axes")
    return reader.add(operations.AnyOfLast(), [x], reader.name)
