"""Dense layers, embeddings, normalization, and layers that do nothing at inference."""

import dataclasses

import numpy as np
from keras import layers

from keras_trim.inference import operations
from keras_trim.inference.converters.activation import activate
from keras_trim.inference.converters.registry import array, bias_of, converts, only


@converts(
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.Identity,
    layers.InputLayer,
)
def _identity(layer, reader, x, training=None):
    return x


@converts(layers.Dense)
def _dense(layer, reader, x, training=None):
    only(layer.quantization_mode is None, "a quantized layer")
    kernel = array(layer.kernel)
    y = reader.add(operations.Dense(kernel, bias_of(layer, kernel.shape[1])), [x], reader.name)
    return activate(layer.activation, reader, y, reader.name)


@converts(layers.EinsumDense)
def _einsum_dense(layer, reader, x, training=None):
    only(layer.quantization_mode is None, "a quantized layer")
    inputs, rest = layer.equation.replace(" ", "").split(",")
    weights, output = rest.split("->")
    x_axes = inputs.replace("...", "")
    y_axes = output.replace("...", "")
    # Contracted axes last in x, the new ones last in y, in the order the kernel has them: then it
    # is a dense layer with its axes joined.
    contracted = [axis for axis in x_axes if axis not in y_axes]
    new = [axis for axis in y_axes if axis not in x_axes]
    free = [axis for axis in x_axes if axis in y_axes]
    is_plain = (
        x_axes == "".join(free + contracted)
        and y_axes == "".join(free + new)
        and sorted(weights) == sorted(contracted + new)
        and len(set(weights)) == len(weights)
    )
    only(is_plain and len(x.shape) == len(x_axes) + (inputs.startswith("...") or 0), "its equation")
    kernel = array(layer.kernel)
    kernel = kernel.transpose([weights.index(axis) for axis in contracted + new])
    in_shape, out_shape = kernel.shape[: len(contracted)], kernel.shape[len(contracted) :]
    kernel = np.ascontiguousarray(kernel.reshape(int(np.prod(in_shape)), -1))
    bias = np.zeros(out_shape, np.float32)
    if layer.bias is not None:
        only(len(layer.bias.shape) <= len(out_shape), "its bias axes")
        bias = bias + array(layer.bias)
    lead = x.shape[1 : len(x.shape) - len(in_shape)]
    only(sum(n is None for n in lead) <= 1, "several free axes")
    lead = tuple(-1 if n is None else n for n in lead)
    if len(in_shape) != 1:
        x = reader.add(operations.Reshape((*lead, kernel.shape[0])), [x], reader.name)
    y = reader.add(operations.Dense(kernel, bias.reshape(-1)), [x], reader.name)
    if len(out_shape) != 1:
        y = reader.add(operations.Reshape((*lead, *out_shape)), [y], reader.name)
    return activate(layer.activation, reader, y, reader.name)


@converts(layers.Embedding)
def _embedding(layer, reader, x):
    only(layer.quantization_mode is None, "a quantized layer")
    y = reader.add(operations.Embedding(array(layer.embeddings)), [x], reader.name)
    if layer.mask_zero:
        mask = reader.add(operations.NotEqual(0), [x], reader.name)
        y = dataclasses.replace(y, mask=dataclasses.replace(mask, dtype="bool"))
    return y


@converts(layers.BatchNormalization)
def _batch_normalization(layer, reader, x, training=None, mask=None):
    rank = len(x.shape)
    axis = layer.axis % rank
    only(axis in (1, rank - 1) and 2 <= rank <= 4, "batch normalization over another axis")
    mean, variance = array(layer.moving_mean), array(layer.moving_variance)
    scale = 1 / np.sqrt(variance + np.float32(layer.epsilon))
    if layer.scale:
        scale = scale * array(layer.gamma)
    shift = -mean * scale
    if layer.center:
        shift = shift + array(layer.beta)
    return scale_channels(reader, x, scale, shift, axis)


def scale_channels(reader, x, scale, shift, axis=-1):
    """y = x * scale + shift with one scale and shift per channel."""
    rank = len(x.shape)
    first = axis % rank == 1 and rank > 2
    x = reader.move_channels_last(x) if first else x
    y = reader.add(
        operations.ScaleChannels(scale.astype(np.float32), shift.astype(np.float32)),
        [x],
        reader.name,
    )
    return reader.move_channels_first(y) if first else y


@converts(layers.LayerNormalization)
def _layer_normalization(layer, reader, x):
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    only([axis % len(x.shape) for axis in axes] == [len(x.shape) - 1], "several axes")
    width = x.shape[-1]
    gamma = array(layer.gamma) if layer.scale else np.ones(width, np.float32)
    beta = array(layer.beta) if layer.center else np.zeros(width, np.float32)
    return reader.add(
        operations.LayerNormalization(gamma.reshape(-1), beta.reshape(-1), float(layer.epsilon)),
        [x],
        reader.name,
    )


@converts(layers.Rescaling)
def _rescaling(layer, reader, x, training=None):
    scale, offset = np.float32(layer.scale), np.float32(layer.offset)
    if scale.ndim == offset.ndim == 0:
        return reader.add(
            operations.Activation("affine", float(scale), float(offset)), [x], reader.name
        )
    only(x.shape[-1] is not None and scale.ndim <= 1 and offset.ndim <= 1, "its scale")
    ones = np.ones(x.shape[-1], np.float32)
    return scale_channels(reader, x, scale * ones, offset * ones)


@converts(layers.Normalization)
def _normalization(layer, reader, x):
    only(layer.axis in ((-1,), (len(x.shape) - 1,)), "its axis")
    mean = np.asarray(array(layer.mean)).reshape(-1)
    deviation = np.sqrt(np.asarray(array(layer.variance)).reshape(-1))
    deviation = np.maximum(deviation, np.float32(1e-7))
    ones = np.ones(x.shape[-1], np.float32)
    if layer.invert:
        return scale_channels(reader, x, deviation * ones, mean * ones)
    return scale_channels(reader, x, ones / deviation, -mean / deviation * ones)
