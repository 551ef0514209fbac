"""Resizing of images."""

import numpy as np

from keras_trim.inference.ir.operations.resizing import Resize
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import RESIZE
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.program.tensors import Tensor

_LARGEST = 1 << 16  # columns; the kernel counts them in 16 bits


@lowers(Resize)
def _lower_resize(op, builder, x):
    require(len(x.shape) == 4, "resizing's axes")
    height, width = x.shape[1:3]
    out_height, out_width = op.size
    if op.is_factor:
        out_height, out_width = height * out_height, width * out_width
    y = Tensor((x.batch, out_height, out_width, x.channels), "NCHW")
    if y.size == 0:
        return y
    require(0 < width <= _LARGEST and height > 0, "an image of an impossible size")
    x = builder.to_nchw(x)
    scratch, scratch_size = builder.scratch(2 * out_width if op.is_blend else 0)
    rows, row_weights = _places(op, height, out_height)
    columns, column_weights = _places(op, width, out_width)
    builder.emit(
        RESIZE, x=x, x_plane=x.plane, y=y, y_plane=y.plane, planes=x.batch * x.channels,
        width=width, out_height=out_height, out_width=out_width, is_blend=int(op.is_blend),
        rows=builder.index(rows), row_weights=builder.constant(row_weights),
        columns=builder.short_index(columns), column_weights=builder.constant(column_weights),
        scratch=scratch, scratch_size=scratch_size,
    )  # fmt: skip
    return y


def _places(op, size, out_size):
    """Returns the two input places that each output place blends, and the second one's weight."""
    places = np.arange(out_size)
    if not op.is_blend:
        nearest = (2 * places + 1) * size // (2 * out_size)
        return np.stack([nearest, nearest]), np.zeros(out_size)
    middles = np.clip((places + 0.5) * size / out_size - 0.5, 0, size - 1)
    first = np.floor(middles).astype(np.int64)
    return np.stack([first, np.minimum(first + 1, size - 1)]), middles - first
