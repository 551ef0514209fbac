"""Images of another size."""

import dataclasses

import numpy as np

from keras_trim.inference.operations.base import Operation, require, require_integers
from keras_trim.inference.tensors import Tensor

_LARGEST = 1 << 16  # of a width that is counted in 16 bits


@dataclasses.dataclass
class Resize(Operation):
    """Images, (batch, height, width, channels), of another size.

    Pixels are squares, so the middle of output pixel i is at (i + 0.5) * size / output size - 0.5.

    Args:
        size: Pair of integers.
        is_factor: Boolean. Whether the size is that of the input times `size`.
        is_blend: Boolean. Whether a pixel is a blend of those around it (bilinear), or the nearest.
    """

    size: tuple
    is_factor: bool
    is_blend: bool

    def check(self):
        require_integers(self.size, 2, 1)

    def lower(self, builder, x):
        require(len(x.shape) == 4, "resizing's axes")
        height, width = x.shape[1:3]
        out_height, out_width = self.size
        if self.is_factor:
            out_height, out_width = height * out_height, width * out_width
        y = Tensor((x.batch, out_height, out_width, x.channels), "planes")
        if y.size == 0:
            return y
        require(0 < width <= _LARGEST and height > 0, "an image of an impossible size")
        x = builder.planes(x)
        scratch, scratch_size = builder.scratch(2 * out_width if self.is_blend else 0)
        rows, row_weights = self._places(height, out_height)
        columns, column_weights = self._places(width, out_width)
        builder.emit(
            "resize",
            [
                x, x.plane, y, y.plane, x.batch * x.channels, width, out_height, out_width,
                int(self.is_blend), builder.index(rows), builder.constant(row_weights),
                builder.short_index(columns), builder.constant(column_weights), scratch,
                scratch_size,
            ],
        )  # fmt: skip
        return y

    def _places(self, size, out_size):
        """The two places along an axis that each place is a blend of, and the second's weight."""
        places = np.arange(out_size)
        if not self.is_blend:
            nearest = (2 * places + 1) * size // (2 * out_size)
            return np.stack([nearest, nearest]), np.zeros(out_size)
        middles = np.clip((places + 0.5) * size / out_size - 0.5, 0, size - 1)
        first = np.floor(middles).astype(np.int64)
        return np.stack([first, np.minimum(first + 1, size - 1)]), middles - first
