"""Converts dense layers, embeddings, normalization by constants, and no-ops at inference."""

import keras
import numpy as np
from keras import layers

from keras_trim.inference.frontend.converters.activation import activate
from keras_trim.inference.frontend.converters.registry import array, bias_of, converts, only
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.operations.strided import LARGEST_RANK

# Up to this mean in units of the deviation, x * scale + shift keeps enough digits of x - mean.
_LARGEST_MEAN = 100


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
    strength = getattr(layer, "rate", 0) or getattr(layer, "stddev", 0)
    only(not (training and strength), "noise that is on")
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
    y = dense_einsum(reader, layer.equation, x, array(layer.kernel), layer.bias)
    return activate(layer.activation, reader, y, reader.name)


def dense_einsum(reader, equation, x, kernel, bias=None):
    """Adds an einsum of a tensor and weights as a dense layer on joined axes."""
    terms, arrow, output = equation.replace(" ", "").partition("->")
    only(arrow and terms.count(",") == 1, "its equation")
    inputs, weights = terms.split(",")
    dots = "..." if inputs.startswith("...") else ""
    only(output.startswith(dots), "its equation")
    x_axes, y_axes = inputs.removeprefix(dots), output.removeprefix(dots)
    only("." not in x_axes + y_axes, "its equation")
    contracted = [axis for axis in x_axes if axis not in y_axes]
    new = [axis for axis in y_axes if axis not in x_axes]
    free = [axis for axis in x_axes if axis in y_axes]
    is_plain = (
        y_axes == "".join(free + new)
        and sorted(weights) == sorted(contracted + new)
        and len(set(weights)) == len(weights)
    )
    only(is_plain, "its equation")
    # The batch axis stays: it is among those that the dots stand for, or the first free one.
    lead = len(x.shape) - len(x_axes)
    only(lead > 0 if dots else lead == 0 and free[:1] == [x_axes[0]], "its equation")
    sizes = dict(zip(weights, kernel.shape, strict=True))
    same = all(x.shape[lead + x_axes.index(axis)] == sizes[axis] for axis in contracted)
    only(same, "sizes of 1 that are repeated")
    if x_axes != "".join(free + contracted):
        order = [lead + x_axes.index(axis) for axis in free + contracted]
        only(len(x.shape) <= LARGEST_RANK, "many axes")
        x = reader.add(operations.Permute((*range(lead), *order)), [x], reader.name)
    kernel = kernel.transpose([weights.index(axis) for axis in contracted + new])
    in_shape, out_shape = kernel.shape[: len(contracted)], kernel.shape[len(contracted) :]
    kernel = np.ascontiguousarray(kernel.reshape(int(np.prod(in_shape)), -1))
    biases = np.zeros(out_shape, np.float32)
    if bias is not None:
        only(len(bias.shape) <= len(out_shape), "its bias axes")
        biases = biases + array(bias)
    lead = x.shape[1 : len(x.shape) - len(in_shape)]
    only(sum(n is None for n in lead) <= 1, "several free axes")
    lead = tuple(-1 if n is None else n for n in lead)
    if len(in_shape) != 1:
        x = reader.add(operations.Reshape((*lead, kernel.shape[0])), [x], reader.name)
    y = reader.add(operations.Dense(kernel, biases.reshape(-1)), [x], reader.name)
    if len(out_shape) != 1:
        y = reader.add(operations.Reshape((*lead, *out_shape)), [y], reader.name)
    return y


@converts(layers.Embedding)
def _embedding(layer, reader, x):
    only(layer.quantization_mode is None, "a quantized layer")
    table = array(layer.embeddings)
    reader.note_indices(x, len(table))
    return reader.add(operations.Embedding(table), [x], reader.name)


@converts(layers.BatchNormalization)
def _batch_normalization(layer, reader, x, training=None, mask=None):
    only(not (training and layer.trainable), "statistics of the batch itself")
    rank = len(x.shape)
    axis = layer.axis % rank
    only(axis > 0 and 2 <= rank <= LARGEST_RANK, "the batch axis")
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
    rank, axis = len(x.shape), axis % len(x.shape)
    # Moves the axis last, like `move_channels_last`, so that the moves cancel out.
    to_last = (*range(axis), *range(axis + 1, rank), axis)
    back = (*range(axis), rank - 1, *range(axis, rank - 1))
    is_last = axis == rank - 1
    x = x if is_last else reader.add(operations.Permute(to_last), [x], reader.name)
    y = reader.add(
        operations.ScaleChannels(scale.astype(np.float32), shift.astype(np.float32)),
        [x],
        reader.name,
    )
    return y if is_last else reader.add(operations.Permute(back), [y], reader.name)


@converts(layers.Rescaling)
def _rescaling(layer, reader, x, training=None):
    scale, offset = np.float32(layer.scale), np.float32(layer.offset)
    if scale.ndim == offset.ndim == 0:
        affine = operations.Activation("affine", float(scale), float(offset))
        return reader.add(affine, [x], reader.name)
    # With channels first, Keras aligns a list with the third axis from the end.
    only(keras.config.image_data_format() == "channels_last", "channels that are not last")
    channels = x.shape[-1]
    only(channels is not None and len(x.shape) > 1, "its scale")
    only(all(z.shape in ((), (1,), (channels,)) for z in (scale, offset)), "its scale")
    ones = np.ones(channels, np.float32)
    return scale_channels(reader, x, scale * ones, offset * ones)


@converts(layers.Normalization)
def _normalization(layer, reader, x):
    only(len(layer.axis) <= 1 and len(x.shape) > 1, "several axes")
    mean = np.asarray(array(layer.mean)).reshape(-1)
    deviation = np.sqrt(np.asarray(array(layer.variance)).reshape(-1))
    deviation = np.maximum(deviation, np.float32(keras.config.epsilon()))
    axis = layer.axis[0] % len(x.shape) if layer.axis else len(x.shape) - 1
    only(axis > 0 and x.shape[axis] is not None, "its axis")
    ones = np.ones(x.shape[axis], np.float32)
    if layer.invert:
        return scale_channels(reader, x, deviation * ones, mean * ones, axis)
    if (np.abs(mean) <= _LARGEST_MEAN * deviation).all():
        return scale_channels(reader, x, ones / deviation, -mean / deviation * ones, axis)
    # Where the deviation is next to nothing, only x - mean itself is close to what Keras computes.
    only(len(x.shape) <= LARGEST_RANK, "many axes")
    shape = [-1 if i == axis else 1 for i in range(len(x.shape))]
    for function, values in (("subtract", mean), ("divide", deviation)):
        constant = reader.add_constant(values.reshape(shape))
        x = reader.add(operations.Binary(function), [x, constant], reader.name)
    return x
