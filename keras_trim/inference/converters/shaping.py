"""Pooling, merging, and layers that move values."""

import numpy as np
from keras import layers

from keras_trim.inference import operations
from keras_trim.inference.converters.convolution import as_formatted, channels_last, two
from keras_trim.inference.converters.registry import converts, only


@converts(
    layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D
)
def _pooling(layer, reader, x):
    rank = len(layer.pool_size) if isinstance(layer.pool_size, tuple) else 1
    is_max = isinstance(layer, layers.MaxPooling1D | layers.MaxPooling2D)
    padding = ("valid", layer.padding) if rank == 1 else (layer.padding,) * 2
    window, strides = layer.pool_size, layer.strides
    window = (window,) if isinstance(window, int) else window
    strides = (strides,) if isinstance(strides, int) else strides
    x = channels_last(layer, reader, x)
    y = reader.add(operations.Pool(two(window), two(strides), padding, is_max), [x], reader.name)
    return as_formatted(layer, reader, y)


@converts(
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
)
def _global_pooling(layer, reader, x, mask=None):
    only(mask is None, "a mask")
    is_max = isinstance(layer, layers.GlobalMaxPooling1D | layers.GlobalMaxPooling2D)
    x = channels_last(layer, reader, x)
    y = reader.add(operations.GlobalPool(is_max, bool(layer.keepdims)), [x], reader.name)
    return as_formatted(layer, reader, y) if layer.keepdims else y


@converts(layers.ZeroPadding1D, layers.ZeroPadding2D)
def _zero_padding(layer, reader, x):
    padding = layer.padding
    amounts = (tuple(padding),) if isinstance(padding[0], int) else tuple(map(tuple, padding))
    return _pad(layer, reader, x, amounts)


@converts(layers.Cropping1D, layers.Cropping2D)
def _cropping(layer, reader, x):
    cropping = layer.cropping
    amounts = (cropping,) if isinstance(cropping[0], int) else cropping
    return _pad(layer, reader, x, tuple((-before, -after) for before, after in amounts))


def _pad(layer, reader, x, amounts):
    if getattr(layer, "data_format", "channels_last") == "channels_last":
        return reader.add(operations.Pad(amounts), [x], reader.name)
    x = channels_last(layer, reader, x)
    return as_formatted(layer, reader, reader.add(operations.Pad(amounts), [x], reader.name))


@converts(layers.UpSampling1D)
def _upsampling_1d(layer, reader, x):
    return reader.add(operations.Repeat((layer.size,)), [x], reader.name)


@converts(layers.UpSampling2D)
def _upsampling_2d(layer, reader, x):
    only(layer.interpolation == "nearest", "interpolation")
    x = channels_last(layer, reader, x)
    y = reader.add(operations.Repeat(tuple(layer.size)), [x], reader.name)
    return as_formatted(layer, reader, y)


@converts(layers.Flatten)
def _flatten(layer, reader, x):
    if layer.data_format == "channels_first" and len(x.shape) > 2:
        x = reader.move_channels_last(x)
    return reader.add(operations.Reshape((-1,)), [x], reader.name)


@converts(layers.Reshape)
def _reshape(layer, reader, x):
    return reader.add(operations.Reshape(tuple(layer.target_shape)), [x], reader.name)


@converts(layers.Permute)
def _permute(layer, reader, x):
    return reader.add(operations.Permute((0, *layer.dims)), [x], reader.name)


@converts(layers.RepeatVector)
def _repeat_vector(layer, reader, x):
    y = reader.add(operations.Reshape((1, x.shape[-1])), [x], reader.name)
    return reader.add(operations.Repeat((layer.n,)), [y], reader.name)


@converts(layers.Concatenate)
def _concatenate(layer, reader, inputs):
    axis = layer.axis % len(inputs[0].shape)
    only(axis > 0, "the batch axis")
    return reader.add(operations.Concatenate(axis), inputs, reader.name)


def _binary(function, x, y):
    # Sizes that are free may turn out to be 1, but Keras would then have seen two different sizes.
    same = len(x.shape) == len(y.shape) and all(
        a == b and (a is not None or i == 0)
        for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True))
    )
    return operations.Binary(function, is_broadcast=not same)


def _fold(function):
    def convert(layer, reader, inputs):
        y = inputs[0]
        for x in inputs[1:]:
            only(len(x.shape) == len(y.shape), "tensors of different ranks")
            y = reader.add(_binary(function, x, y), [y, x], reader.name)
        return y

    return convert


for _class, _function in (
    (layers.Add, "add"),
    (layers.Subtract, "subtract"),
    (layers.Multiply, "multiply"),
    (layers.Maximum, "maximum"),
    (layers.Minimum, "minimum"),
):
    converts(_class)(_fold(_function))


@converts(layers.Average)
def _average(layer, reader, inputs):
    total = _fold("add")(layer, reader, inputs)
    return reader.add(
        operations.Activation("affine", 1 / len(inputs), 0.0), [total], reader.name
    )


def _operation(*names):
    """Classes of operations (`x + y` of a functional model); Keras does not export them."""
    from keras.src.ops import numpy as numpy_operations

    return [getattr(numpy_operations, name) for name in names]


def _arithmetic(function):
    def convert(layer, reader, x, y):
        symbols = [isinstance(z, reader.symbol) for z in (x, y)]
        if all(symbols):
            return reader.add(_binary(function, x, y), [x, y], reader.name)
        symbol, other = (x, y) if symbols[0] else (y, x)
        only(np.ndim(other) == 0 and not hasattr(other, "shape"), "an operand that is an array")
        other = float(other)
        table = {
            "add": (1.0, other),
            "subtract": (1.0, -other) if symbols[0] else (-1.0, other),
            "multiply": (other, 0.0),
            "divide": (1 / other, 0.0) if symbols[0] and other else None,
        }
        only(table[function] is not None, "a number divided by a tensor")
        return reader.add(
            operations.Activation("affine", *table[function]), [symbol], reader.name
        )

    return convert


for _name, _function in (
    ("Add", "add"),
    ("Subtract", "subtract"),
    ("Multiply", "multiply"),
    ("TrueDivide", "divide"),
):
    converts(*_operation(_name))(_arithmetic(_function))
