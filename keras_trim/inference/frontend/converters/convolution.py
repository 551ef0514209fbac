"""Converts convolutional layers."""

import dataclasses

import numpy as np
from keras import layers

from keras_trim.inference.frontend.converters.activation import activate
from keras_trim.inference.frontend.converters.registry import (
    array,
    bias_of,
    converts,
    keras_operations,
    only,
)
from keras_trim.inference.ir import operations


def channels_last(layer, reader, x):
    """The input with channels last, for any data format of the layer."""
    return x if layer.data_format == "channels_last" else reader.move_channels_last(x)


def as_formatted(layer, reader, y):
    return y if layer.data_format == "channels_last" else reader.move_channels_first(y)


def _activated(layer, reader, x, y):
    """Applies the activation of a layer to y, its output for x."""
    # Softmax is over the last axis in the layer's data format, so restore that format first.
    y = as_formatted(layer, reader, y)
    y = dataclasses.replace(y, shape=tuple(layer.compute_output_shape(x.shape)))
    return activate(layer.activation, reader, y, reader.name)


def two(values, fill=1):
    """The values as a pair: (fill, n) for a 1D layer."""
    values = tuple(values)
    return (fill, *values) if len(values) == 1 else values


def _paddings(layer):
    return ("valid", layer.padding) if layer.rank == 1 else (layer.padding,) * 2


@converts(layers.Conv1D, layers.Conv2D)
def _convolution(layer, reader, x):
    kernel = array(layer.kernel)
    kernel = kernel[None] if layer.rank == 1 else kernel
    moved = channels_last(layer, reader, x)
    y = reader.add(
        operations.Convolution(
            kernel,
            bias_of(layer, layer.filters),
            strides=two(layer.strides),
            padding=_paddings(layer),
            dilation=two(layer.dilation_rate),
            groups=layer.groups,
        ),
        [moved],
        reader.name,
    )
    return _activated(layer, reader, x, y)


@converts(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def _depthwise(layer, reader, x):
    moved = channels_last(layer, reader, x)
    y = _add_depthwise(layer, layer.kernel, bias_of(layer, _outputs(layer.kernel)), reader, moved)
    return _activated(layer, reader, x, y)


def _outputs(kernel):
    return kernel.shape[-2] * kernel.shape[-1]


def _add_depthwise(layer, kernel, bias, reader, x):
    kernel = array(kernel)
    return reader.add(
        operations.DepthwiseConvolution(
            kernel[None] if layer.rank == 1 else kernel,
            bias,
            strides=two(layer.strides),
            padding=_paddings(layer),
            dilation=two(layer.dilation_rate),
        ),
        [x],
        reader.name,
    )


@converts(layers.SeparableConv1D, layers.SeparableConv2D)
def _separable(layer, reader, x):
    moved = channels_last(layer, reader, x)
    channels = _outputs(layer.depthwise_kernel)
    y = _add_depthwise(layer, layer.depthwise_kernel, np.zeros(channels, np.float32), reader, moved)
    kernel = array(layer.pointwise_kernel)
    kernel = kernel[None] if layer.rank == 1 else kernel
    y = reader.add(operations.Convolution(kernel, bias_of(layer, layer.filters)), [y], reader.name)
    return _activated(layer, reader, x, y)


@converts(layers.Conv1DTranspose, layers.Conv2DTranspose)
def _transposed(layer, reader, x):
    kernel = array(layer.kernel)
    kernel = kernel[None] if layer.rank == 1 else kernel
    # The gradient of a convolution: the flipped kernel, over an input dilated by the strides.
    kernel = np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3))
    strides, dilation, more = layer.strides, layer.dilation_rate, layer.output_padding
    more = (more,) * layer.rank if more is None or isinstance(more, int) else more
    axes = zip(kernel.shape[:2], two(strides), two(dilation), two(more, None), strict=True)
    padding = tuple(_transposed_padding(layer.padding, *axis) for axis in axes)
    moved = channels_last(layer, reader, x)
    y = reader.add(
        operations.Convolution(
            kernel,
            bias_of(layer, layer.filters),
            padding=padding,
            dilation=two(dilation),
            input_dilation=two(strides),
        ),
        [moved],
        reader.name,
    )
    return _activated(layer, reader, x, y)


def _transposed_padding(padding, size, stride, dilation, more):
    """Padding before and after the dilated input that gives the output size of Keras.

    Args:
        more: Integer, Keras's `output_padding`, or None.
    """
    reach = (size - 1) * dilation + 1
    if padding == "valid":
        # (n - 1) * stride + reach + more outputs.
        more = max(stride - reach, 0) if more is None else more
        return reach - 1, reach - 1 + more
    # n * stride outputs, or (n - 1) * stride + reach % 2 + more.
    total = stride + reach - 2 if more is None else reach + reach % 2 - 2 + more
    before = min(-(-total // 2), reach - 1)
    return before, total - before


@converts(*keras_operations("nn", "Conv"))
def _convolution_of(operation, reader, x, kernel):
    kernel, how = _in_two_axes(operation, reader, kernel)
    only(x.shape[-1] == kernel.shape[2], "groups")
    bias = np.zeros(kernel.shape[-1], np.float32)
    return reader.add(operations.Convolution(kernel, bias, **how), [x], reader.name)


@converts(*keras_operations("nn", "DepthwiseConv"))
def _depthwise_of(operation, reader, x, kernel):
    kernel, how = _in_two_axes(operation, reader, kernel)
    bias = np.zeros(_outputs(kernel), np.float32)
    return reader.add(operations.DepthwiseConvolution(kernel, bias, **how), [x], reader.name)


def _in_two_axes(operation, reader, kernel):
    """The kernel of an operation of `keras.ops`, and a dict of the other fields."""
    only(not isinstance(kernel, reader.symbol), "a computed kernel")
    only(operation.data_format == "channels_last", "channels that come first")
    kernel = array(kernel)
    rank = kernel.ndim - 2
    only(rank in (1, 2), "another number of axes")

    def per_axis(value):
        return two((value,) * rank if isinstance(value, int) else value)

    how = {
        "strides": per_axis(operation.strides),
        "padding": two((operation.padding,) * rank, "valid"),
        "dilation": per_axis(operation.dilation_rate),
    }
    return kernel[None] if rank == 1 else kernel, how
