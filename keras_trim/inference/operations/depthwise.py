"""Depthwise convolution, and scaling of channels as its 1 x 1 case."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.windows import window_number
from keras_trim.inference.operations.base import (
    Operation,
    require,
    require_integers,
    require_number,
    require_padding,
    require_weights,
)
from keras_trim.inference.operations.convolution import (
    INFINITY,
    Clip,
    Geometry,
    output_tensor,
    planes_together,
    spatial,
)


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

    def lower(self, builder, x):
        channels = self.kernel.shape[2]
        require(len(x.shape) in (3, 4) and x.channels == channels, "a convolution's channels")
        x = builder.planes(x)
        height, width, channels, multiplier = self.kernel.shape
        geometry = Geometry(x, (height, width), self.strides, self.dilation, self.padding)
        y = output_tensor(x, geometry, channels * multiplier)
        if y.size == 0:
            return y
        phases = geometry.phases[0] * geometry.phases[1]
        number, most_lines = window_number("product", (height, width), self.strides, self.dilation)
        together = planes_together(geometry)
        scratch, scratch_size = builder.scratch(
            together * phases * geometry.plane + most_lines * geometry.out_width
        )
        # One group of all taps, for kernels of other sizes.
        offsets = [*geometry.tap_offsets(), 0, height * width, 0]
        kernel = self.kernel.reshape(height * width, channels * multiplier).T
        clip = Clip(self.low, self.high)
        builder.choose("depthwise")
        builder.emit(
            "depthwise",
            [
                x, x.sample_size, x.plane, y, y.sample_size, y.plane, x.batch, channels,
                multiplier, *spatial(x), geometry.out_height, geometry.out_width, geometry.top,
                geometry.left, *self.strides, geometry.rows, geometry.row,
                builder.index(offsets), height * width, builder.constant(kernel),
                builder.constant(self.bias), scratch, scratch_size, geometry.plane, clip.flag,
                *geometry.phases, together, number, most_lines,
            ],
            [clip.low, clip.high],
        )  # fmt: skip
        return y

    def multiply_adds(self, output_shape):
        pixels = int(np.prod(output_shape[:-1]))
        return pixels * self.kernel.size, pixels * int(np.count_nonzero(self.kernel))
