"""Converts layers that merge tensors element by element.

In Keras, `Multiply`, `Maximum` and `Minimum` leave masked positions of an input out.
"""

import functools
import itertools

import numpy as np
from keras import layers

from keras_trim.inference.frontend.converters.arithmetic import NOTHING, add_binary
from keras_trim.inference.frontend.converters.indexing import reshape
from keras_trim.inference.frontend.converters.registry import converts, only
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.dtypes import is_float


def _fold(function):
    def convert(layer, reader, inputs):
        return functools.reduce(functools.partial(_merge, reader, function), inputs)

    return convert


def _merge(reader, function, y, x):
    only(len(x.shape) == len(y.shape), "tensors of different ranks")
    return add_binary(reader, function, y, x)


converts(layers.Add)(_fold("add"))
converts(layers.Subtract)(_fold("subtract"))


@converts(layers.Average)
def _average(layer, reader, inputs):
    is_symbol = [isinstance(x, reader.symbol) for x in inputs]
    floats = (is_float(x.dtype) for x in itertools.compress(inputs, is_symbol))
    only(all(floats), "integers, which may overflow")
    total = _fold("add")(layer, reader, inputs)
    affine = operations.Activation("affine", 1 / len(inputs), NOTHING)
    return reader.add(affine, [total], reader.name)


@converts(layers.Multiply)
def _multiply(layer, reader, inputs):
    """Masked factors count as 1. A product is 0 where all factors are masked."""
    masks = [_mask_of(reader, x) for x in inputs]
    factors = [_select(reader, mask, x, 1.0) for mask, x in zip(masks, inputs, strict=True)]
    y = _fold("multiply")(layer, reader, factors)
    return _select(reader, _any_of(reader, masks), y, 0.0)


def _extreme(function):
    def convert(layer, reader, inputs):
        y, y_mask = inputs[0], _mask_of(reader, inputs[0])
        for x in inputs[1:]:
            mask = _mask_of(reader, x)
            x = _select(reader, mask, x, y)
            y = _merge(reader, function, _select(reader, y_mask, y, x), x)
            y_mask = _any_of(reader, [y_mask, mask])
        return y

    return convert


converts(layers.Maximum)(_extreme("maximum"))
converts(layers.Minimum)(_extreme("minimum"))


def _mask_of(reader, x):
    """The mask of a tensor as float32, with an axis of one channel; or `None`."""
    if getattr(x, "mask", None) is None:  # a constant has none
        return None
    only(len(x.mask.shape) == len(x.shape) - 1, "a mask of another rank")
    return reshape(reader, reader.cast(x.mask, "float32"), (*x.mask.shape[1:], 1))


def _any_of(reader, masks):
    """Where one of the masks is 1; `None` if one of the masks is missing."""
    if any(mask is None for mask in masks):
        return None
    return functools.reduce(functools.partial(add_binary, reader, "maximum"), masks)


def _select(reader, mask, x, other):
    """x where the mask is 1, else the other tensor or number."""
    if mask is None:
        return x
    if isinstance(other, float):
        other = reader.add_constant(np.full(1, other, np.float32))
    return reader.add(operations.Select(), [mask, x, other], reader.name)
