"""Depthwise convolution, and scaling of channels as its 1 x 1 case."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.flat import masks_of_taps
from keras_trim.inference.kernels.lines import MOST_BEFORE, WINDOWS
from keras_trim.inference.kernels.vector import LANES
from keras_trim.inference.kernels.windows import MOST_LINES, window_number
from keras_trim.inference.operations.base import (
    INFINITY,
    Clip,
    Operation,
    require,
    require_integers,
    require_number,
    require_padding,
    require_weights,
)
from keras_trim.inference.operations.convolution import (
    Geometry,
    output_tensor,
    planes_together,
    spatial,
)
from keras_trim.inference.tensors import SLACK, round_up

_MOST_MASKS = 1 << 22  # bits


@dataclasses.dataclass
class DepthwiseConvolution(Operation):
    """y[..., c * multiplier + m] = clip(convolution(x[..., c], kernel[..., c, m]) + bias).

    Args:
        kernel: Array, float32, (height, width, channels, multiplier).
        bias: Array, float32, (channels * multiplier,).
        strides, dilation, padding, low, high: As `Convolution`'s.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple = (1, 1)
    padding: tuple = ("valid", "valid")
    dilation: tuple = (1, 1)
    low: float = -INFINITY
    high: float = INFINITY

    def check(self):
        require_weights(self.kernel, None, None, None, None)
        require_integers(self.kernel.shape, 4, 1)
        require_weights(self.bias, self.kernel.shape[2] * self.kernel.shape[3])
        for pair in (self.strides, self.dilation):
            require_integers(pair, 2, 1)
        require_padding(self.padding)
        require_number(self.low)
        require_number(self.high)

    def lower(self, builder, x, *, out=None):
        channels = self.kernel.shape[2]
        require(len(x.shape) in (3, 4) and x.channels == channels, "a convolution's channels")
        x = builder.planes(x)
        geometry = Geometry(x, self.kernel.shape[:2], self.strides, self.dilation, self.padding)
        y = output_tensor(x, geometry, channels * self.kernel.shape[3])
        if out is not None:
            require(out.shape == y.shape, "an output of another shape")
            y = out
        if y.size == 0:
            return y
        if self._window in WINDOWS and geometry.left <= MOST_BEFORE:
            ways = {"depthwise_lines": self._lines}
        else:
            ways = {"depthwise": self._padded}
        if _is_within(geometry):
            ways["depthwise_flat"] = self._flat
        way = builder.tuner.fastest(
            list(ways),
            lambda way, builder: ways[way](builder, geometry, x, y),
            likeness=(
                "depthwise",
                self.kernel.shape,
                x.shape,
                self.strides,
                self.dilation,
                self.padding,
            ),
        )
        builder.choose(way.replace("_", ", "))
        ways[way](builder, geometry, x, y)
        return y

    @property
    def _window(self):
        """(size, stride) if both axes have the same, and windows have no gaps; else `None`."""
        sizes, strides = set(self.kernel.shape[:2]), set(self.strides)
        if len(sizes) == len(strides) == 1 and tuple(self.dilation) == (1, 1):
            return *sizes, *strides
        return None

    def _lines(self, builder, geometry, x, y):
        """Emits the instruction that works line by line on the image itself."""
        channels, multiplier = self.kernel.shape[2:]
        size, stride = self._window
        reach = stride * round_up(y.shape[2]) + 3 * LANES  # from the first column of a line
        x.base.slack = max(x.base.slack, SLACK + reach - spatial(x)[1])
        zeros, zeros_size = builder.scratch(MOST_BEFORE + reach)
        kernel, bias, clip = self._constants(builder)
        operands = [
            x, x.sample_size, x.plane, y, y.sample_size, y.plane, x.batch, channels,
            *spatial(x), multiplier, geometry.out_height, geometry.out_width, geometry.top,
            geometry.left, stride, WINDOWS[size, stride], size * size, kernel, bias, zeros,
            zeros_size, clip.flag,
        ]  # fmt: skip
        builder.emit("depthwise_lines", operands, [clip.low, clip.high])

    def _padded(self, builder, geometry, x, y):
        """Emits the instruction that works line by line on a padded copy."""
        height, width, channels, multiplier = self.kernel.shape
        phases = geometry.phases[0] * geometry.phases[1]
        number = window_number("product", (height, width), self.strides, self.dilation)
        together = planes_together(geometry)
        scratch, scratch_size = builder.scratch(
            together * phases * geometry.plane + MOST_LINES * geometry.out_width
        )
        # One group of all taps, for kernels of other sizes.
        offsets = [*geometry.tap_offsets(), 0, height * width, 0]
        kernel, bias, clip = self._constants(builder)
        operands = [
            x, x.sample_size, x.plane, y, y.sample_size, y.plane, x.batch, channels,
            *spatial(x), multiplier, geometry.out_height, geometry.out_width, geometry.top,
            geometry.left, *self.strides, geometry.rows, geometry.row,
            builder.index(offsets), height * width, kernel, bias, scratch, scratch_size,
            geometry.plane, clip.flag, *geometry.phases, together, number,
        ]  # fmt: skip
        builder.emit("depthwise", operands, [clip.low, clip.high])

    def _flat(self, builder, geometry, x, y):
        """Emits the instruction that works on whole planes with masks."""
        height, width, channels, multiplier = self.kernel.shape
        taps = np.indices((height, width)).reshape(2, -1).T * self.dilation
        # Where strides or columns differ, windows are computed at every pixel of the image.
        is_direct = self.strides == (1, 1) and geometry.out_width == spatial(x)[1]
        rows = geometry.out_height if is_direct else spatial(x)[0]
        shifts, masks = masks_of_taps(*spatial(x), taps - (geometry.top, geometry.left), rows)
        scratch, scratch_size = (0, 0) if is_direct else builder.scratch(masks.shape[1] * LANES)
        kernel, bias, clip = self._constants(builder)
        operands = [
            x, x.sample_size, x.plane, y, y.sample_size, y.plane, x.batch, channels,
            *spatial(x), multiplier, geometry.out_height, geometry.out_width, *self.strides,
            builder.index(shifts), builder.short_index(masks), masks.shape[1], height * width,
            kernel, bias, scratch, scratch_size, clip.flag,
        ]  # fmt: skip
        builder.emit("depthwise_flat", operands, [clip.low, clip.high])

    def _constants(self, builder):
        kernel = self.kernel.reshape(-1, self.bias.size).T
        return builder.constant(kernel), builder.constant(self.bias), Clip(self.low, self.high)

    def multiply_adds(self, input_shape, output_shape):
        pixels = int(np.prod(output_shape[:-1]))
        return pixels * self.kernel.size, pixels * int(np.count_nonzero(self.kernel))


def _is_within(geometry):
    """Whether each output has its window at a pixel of the image, and masks are not too many."""
    pixels = max(geometry.x.pixels, geometry.out_height * geometry.out_width)
    if pixels * geometry.kernel[0] * geometry.kernel[1] > _MOST_MASKS:
        return False
    outputs = geometry.out_height, geometry.out_width
    if geometry.strides == (1, 1) and outputs[1] == spatial(geometry.x)[1]:
        return True
    axes = zip(outputs, geometry.strides, spatial(geometry.x), strict=True)
    return all((count - 1) * stride < size for count, stride, size in axes)
