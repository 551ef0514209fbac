"""Pooling."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.windows import MOST_LINES, window_number
from keras_trim.inference.operations.base import (
    Operation,
    require,
    require_integers,
    require_number,
    require_padding,
)
from keras_trim.inference.operations.convolution import (
    Geometry,
    output_tensor,
    planes_together,
    spatial,
)
from keras_trim.inference.tensors import Tensor

_MOST_TAPS = 1 << 20  # places in a window


@dataclasses.dataclass
class Pool(Operation):
    """Maximum or mean over windows; the mean is over the pixels that are inside of the image.

    Args:
        window, strides: Pairs of integers.
        padding: Pair, as `Convolution`'s.
        is_max: Boolean.
        outside: Float. What a maximum finds outside of the image.
    """

    window: tuple
    strides: tuple
    padding: tuple
    is_max: bool
    outside: float = -np.inf

    def check(self):
        require_integers(self.window, 2, 1)
        require(self.window[0] * self.window[1] <= _MOST_TAPS, "a window that is too large")
        require_integers(self.strides, 2, 1)
        require_padding(self.padding)
        require_number(self.outside)

    def lower(self, builder, x):
        require(len(x.shape) in (3, 4), "pooling's axes")
        x = builder.planes(x)
        geometry = Geometry(x, self.window, self.strides, (1, 1), self.padding)
        y = output_tensor(x, geometry, x.channels)
        builder.require_memory(y.size + geometry.plane)
        if y.size == 0:
            return y
        phases = geometry.phases[0] * geometry.phases[1]
        number = window_number(
            "maximum" if self.is_max else "sum", self.window, self.strides, (1, 1)
        )
        together = planes_together(geometry)
        scratch, scratch_size = builder.scratch(
            together * phases * geometry.plane + MOST_LINES * geometry.out_width
        )
        height, width = spatial(x)
        counts = np.outer(
            _inside(geometry.out_height, self.strides[0], self.window[0], geometry.top, height),
            _inside(geometry.out_width, self.strides[1], self.window[1], geometry.left, width),
        )
        builder.emit(
            "pool",
            [
                x, x.sample_size, x.plane, y, y.sample_size, y.plane, x.batch, x.channels,
                height, width, geometry.out_height, geometry.out_width, geometry.top,
                geometry.left, *self.strides, geometry.rows, geometry.row,
                builder.index(geometry.tap_offsets()), self.window[0] * self.window[1], scratch,
                scratch_size, geometry.plane, int(self.is_max), builder.constant(1 / counts),
                *geometry.phases, together, number,
            ],
            [self.outside if self.is_max else 0.0],
        )  # fmt: skip
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
