"""Products of convolutions: unfolds windows of the input into rows."""

import math

import keras
import numpy as np
from keras import ops

from keras_trim.one_shot.product import Product, to_numpy


class ConvolutionProduct(Product):
    """Convolutions of any rank, including grouped and dilated ones."""

    is_output = True

    @property
    def _groups(self):
        return self.layer.groups

    @property
    def shape(self):
        *window, channels, filters = self.variable.shape
        return self._groups, math.prod(window) * channels, filters // self._groups

    @property
    def channels(self):
        return self.variable.shape[-2]

    def to_matrices(self, kernel):
        systems, inputs, outputs = self.shape
        return kernel.reshape(inputs, systems, outputs).swapaxes(0, 1)

    def from_matrices(self, matrices):
        return matrices.swapaxes(0, 1).reshape(self.variable.shape)

    def _settings(self):
        """Tuple: window, strides, dilations, padding, whether the layout is channels first."""
        layer = self.layer
        return (
            tuple(self.variable.shape[:-2]),
            layer.strides,
            layer.dilation_rate,
            layer.padding,
            layer.data_format == "channels_first",
        )

    def _input(self, x):
        return x

    def rows(self, x):
        window, strides, dilations, padding, is_first = self._settings()
        x = to_numpy(self._input(x))
        if is_first:
            x = np.moveaxis(x, 1, -1)
        windows = unfold(x, window, strides, dilations, padding)
        *places, channels = windows.shape  # (examples, *positions, *window, channels)
        samples = math.prod(places[: 1 + len(window)])
        systems = self._groups
        if systems == 1:
            return windows.reshape(1, samples, -1)
        windows = windows.reshape(samples, math.prod(window), systems, channels // systems)
        return windows.transpose(2, 0, 1, 3).reshape(systems, samples, -1)

    def outputs(self, x, kernel):
        """Uses the backend's convolution, which needs no unfolding."""
        layer, x = self.layer, self._input(x)
        if not keras.backend.is_float_dtype(x.dtype):  # the kernel would be cast to integers
            x = ops.cast(x, layer.compute_dtype)
        padding = layer.padding
        if padding == "causal":
            pads = [(0, 0), (0, 0), (0, 0)]
            pads[2 if layer.data_format == "channels_first" else 1] = (
                layer.dilation_rate[0] * (layer.kernel_size[0] - 1),
                0,
            )
            x, padding = ops.pad(x, pads), "valid"
        y = self._convolve(x, ops.cast(ops.convert_to_tensor(kernel), x.dtype), padding)
        y = to_numpy(y)
        if layer.data_format == "channels_first":
            y = np.moveaxis(y, 1, -1)
        return y.reshape(-1, self._groups, self.shape[2]).swapaxes(0, 1)

    def _convolve(self, x, kernel, padding):
        layer = self.layer
        return ops.conv(
            x,
            kernel,
            strides=list(layer.strides),
            padding=padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    def row_bytes(self, x):
        window, strides, *_ = self._settings()
        return 8 * math.prod(x.shape[1:]) * math.prod(window) // max(math.prod(strides), 1)


class PointwiseProduct(ConvolutionProduct):
    """The pointwise kernel of a separable convolution, applied to the depthwise outputs."""

    _groups = 1

    def _settings(self):
        ones = (1,) * self.layer.rank
        return ones, ones, ones, "valid", self.layer.data_format == "channels_first"

    def _input(self, x):
        layer = self.layer
        padding = layer.padding
        if padding == "causal":
            x, padding = ops.pad(x, layer._compute_causal_padding()), "valid"
        return ops.depthwise_conv(
            x,
            ops.cast(ops.convert_to_tensor(layer.depthwise_kernel), x.dtype),
            strides=layer.strides,
            padding=padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    def outputs(self, x, kernel):
        return Product.outputs(self, x, kernel)


def unfold(x, window, strides, dilations, padding):
    """The input windows of a convolution.

    Args:
        x: Array (examples, *positions, channels).
        window, strides, dilations: Tuples of integers, one per axis of positions.
        padding: `"valid"`, `"same"` (as in TensorFlow) or `"causal"`.

    Returns:
        Array (examples, *positions, *window, channels), a view of the padded input.
    """
    axes = range(1, 1 + len(window))
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True)]
    pads = [(0, 0)] * x.ndim
    for axis, span, stride in zip(axes, spans, strides, strict=True):
        if padding == "causal":
            pads[axis] = (span - 1, 0)
        elif padding == "same":
            positions = -(-x.shape[axis] // stride)
            total = max((positions - 1) * stride + span - x.shape[axis], 0)
            pads[axis] = (total // 2, total - total // 2)
    if any(pad != (0, 0) for pad in pads):
        x = np.pad(x, pads)
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(axes))
    steps = [slice(None), *(slice(None, None, stride) for stride in strides), slice(None)]
    steps += [slice(None, None, dilation) for dilation in dilations]
    return np.moveaxis(windows[tuple(steps)], 1 + len(window), -1)
