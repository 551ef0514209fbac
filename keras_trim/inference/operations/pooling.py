"""Pooling."""

import dataclasses

import numpy as np

from keras_trim.inference.operations.base import (
    INFINITY,
    Clip,
    Operation,
    require,
    require_integers,
    require_number,
    require_padding,
)
from keras_trim.inference.operations.convolution import Geometry, output_tensor, spatial
from keras_trim.inference.operations.windows import Windows
from keras_trim.inference.tensors import Tensor

_MOST_TAPS = 1 << 20  # places in a window


@dataclasses.dataclass
class Pool(Operation):
    """Clipped maximum or mean over windows; the mean is over the pixels inside of the image.

    Args:
        window, strides: Pairs of integers.
        padding: Pair, as `Convolution`'s.
        is_max: Boolean.
        outside: Float. What a maximum finds outside of the image.
        low, high: Floats, as `Convolution`'s.
    """

    window: tuple
    strides: tuple
    padding: tuple
    is_max: bool
    outside: float = -INFINITY
    low: float = -INFINITY
    high: float = INFINITY

    dilation = (1, 1)

    def check(self):
        require_integers(self.window, 2, 1)
        require(self.window[0] * self.window[1] <= _MOST_TAPS, "a window that is too large")
        require_integers(self.strides, 2, 1)
        require_padding(self.padding)
        require_number(self.outside)
        require_number(self.low)
        require_number(self.high)

    def lower(self, builder, x, *, out=None):
        require(len(x.shape) in (3, 4), "pooling's axes")
        x = builder.planes(x)
        geometry = Geometry(x, self.window, self.strides, self.dilation, self.padding)
        y = output_tensor(x, geometry, x.channels)
        if out is not None:
            require(out.shape == y.shape, "an output of another shape")
            y = out
        builder.require_memory(y.size + geometry.plane)
        if y.size == 0:
            return y
        clip = Clip(self.low, self.high)
        if self.is_max:
            windows = Windows("maximum", x, y, geometry, clip=clip, outside=self.outside)
        else:
            height, width = spatial(x)
            rows = _inside(
                geometry.out_height, self.strides[0], self.window[0], geometry.top, height
            )
            columns = _inside(
                geometry.out_width, self.strides[1], self.window[1], geometry.left, width
            )
            windows = Windows("sum", x, y, geometry, 1 / np.outer(rows, columns), clip=clip)
        builder.choose(windows.emit(builder))
        return y


def _inside(outputs, stride, window, before, size):
    """How many pixels of each window are inside of the image, along one axis."""
    first = np.arange(outputs) * stride - before
    return np.maximum(np.minimum(first + window, size) - np.maximum(first, 0), 1)


@dataclasses.dataclass
class GlobalPool(Operation):
    """Maximum or mean over all pixels.

    Args:
        is_max: Boolean.
        keepdims: Boolean.
    """

    is_max: bool
    keepdims: bool

    def lower(self, builder, x):
        require(len(x.shape) >= 3, "pooling's axes")
        x = builder.planes(x)
        ones = (1,) * (len(x.shape) - 2) if self.keepdims else ()
        y = Tensor((x.batch, *ones, x.channels), "rows")
        if y.size and not x.pixels:
            builder.emit("fill", [y, y.size], [-np.inf if self.is_max else np.nan])
        elif y.size:
            builder.emit(
                "global_pool",
                [x, x.sample_size, x.plane, y, x.batch, x.channels, x.pixels, int(self.is_max)],
            )
        return y
