"""Converts pooling, resizing, and layers that move values."""

import math

import keras
from keras import layers

from keras_trim.inference.frontend.converters.convolution import as_formatted, channels_last, two
from keras_trim.inference.frontend.converters.indexing import reshape, slice_of
from keras_trim.inference.frontend.converters.registry import converts, keras_operations, only
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.dtypes import is_float
from keras_trim.inference.ir.operations.strided import LARGEST_RANK
from keras_trim.inference.ir.padding import padding_of


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
    if layer.padding == "same" and not is_max and keras.backend.backend() == "torch":
        x, padding = _replicated(reader, x, window, strides, padding)
    y = reader.add(operations.Pool(two(window), two(strides), padding, is_max), [x], reader.name)
    return as_formatted(layer, reader, y)


def _replicated(reader, x, window, strides, padding):
    """Pads the input of average pooling as Keras does on PyTorch; returns it, and the padding left.

    If an axis needs more padding after than before, Keras replicates the border pixels of all axes,
    and the mean includes them.
    """
    axes = range(1, len(x.shape) - 1)
    only(None not in x.shape[1:-1], "padding of free axes")
    pairs = [
        padding_of("same", x.shape[axis], *sizes)[1:]
        for axis, *sizes in zip(axes, window, strides, strict=True)
    ]
    if all(before == after for before, after in pairs):
        return x, padding
    for axis, (before, after) in zip(axes, pairs, strict=True):
        first, last = (slice_of(reader, x, {axis: s}) for s in (slice(0, 1), slice(-1, None)))
        parts = [first] * before + [x] + [last] * after
        if len(parts) > 1:
            x = reader.add(operations.Concatenate(axis), parts, reader.name)
    return x, ("valid", "valid")


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
    only(layer.interpolation in ("nearest", "bilinear"), "interpolation")
    x = channels_last(layer, reader, x)
    size = tuple(layer.size)
    operation = operations.Resize(size, True, layer.interpolation == "bilinear")
    if not is_float(x.dtype):
        only(layer.interpolation == "nearest", "integers between others")
        operation = operations.Repeat(size)
    return as_formatted(layer, reader, reader.add(operation, [x], reader.name))


def _resized(layer, reader, x, size):
    only(layer.interpolation in ("nearest", "bilinear"), "interpolation")
    only(not (layer.antialias or layer.crop_to_aspect_ratio), "antialiasing or cropping")
    only(not layer.pad_to_aspect_ratio and len(x.shape) == 4, "padding, or a single image")
    only(is_float(x.dtype), "integers, which Keras rounds")
    x = channels_last(layer, reader, x)
    if layer.interpolation == "nearest":
        only(None not in x.shape[1:3], "the nearest pixels of free axes")
        only(not any(map(_has_ties, x.shape[1:3], size)), "pixels that are equally near")
    resize = operations.Resize(size, False, layer.interpolation == "bilinear")
    return as_formatted(layer, reader, reader.add(resize, [x], reader.name))


def _has_ties(size, out_size):
    """Whether an output pixel is equally near to two input pixels, at an inexact factor.

    Which of the two it takes depends on how Keras's backend rounds.
    """
    divisor = math.gcd(size, out_size)
    return size // divisor % 2 == 0 and out_size // divisor % 2 == 1 and out_size != divisor


@converts(layers.Resizing)
def _resizing(layer, reader, data, training=None):
    return _resized(layer, reader, data, (layer.height, layer.width))


@converts(*keras_operations("image", "Resize"))
def _resize(operation, reader, x):
    return _resized(operation, reader, x, tuple(operation.size))


@converts(layers.Flatten)
def _flatten(layer, reader, x):
    if layer.data_format == "channels_first" and len(x.shape) > 2:
        only(len(x.shape) <= LARGEST_RANK, "many axes")
        x = reader.move_channels_last(x)
    shape = (1,) if len(x.shape) == 1 else (-1,)
    return reader.add(operations.Reshape(shape), [x], reader.name)


@converts(layers.Reshape)
def _reshape(layer, reader, x):
    return reader.add(operations.Reshape(tuple(layer.target_shape)), [x], reader.name)


@converts(layers.Permute)
def _permute(layer, reader, x):
    only(len(x.shape) <= LARGEST_RANK, "many axes")
    return reader.add(operations.Permute((0, *layer.dims)), [x], reader.name)


@converts(layers.RepeatVector)
def _repeat_vector(layer, reader, x):
    y = reshape(reader, x, (1, x.shape[-1]))
    return reader.add(operations.Repeat((layer.n,)), [y], reader.name)


@converts(layers.Concatenate)
def _concatenate(layer, reader, inputs):
    axis = layer.axis % len(inputs[0].shape)
    only(axis > 0, "the batch axis")
    return reader.add(operations.Concatenate(axis), inputs, reader.name)
