"""Pooling."""

import numpy as np

from keras_trim.inference.ir.operations.pooling import GlobalPool, Pool
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import FILL, GLOBAL_POOL
from keras_trim.inference.lowering.clip import Clip
from keras_trim.inference.lowering.geometry import Geometry, output_tensor, spatial
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.lowering.sliding_window import SlidingWindow
from keras_trim.inference.program.tensors import Tensor


@lowers(Pool)
def _lower_pool(op, builder, x, *, out=None):
    require(len(x.shape) in (3, 4), "pooling's axes")
    x = builder.to_nchw(x)
    geometry = Geometry(x, op.window, op.strides, op.dilation, op.padding)
    y = output_tensor(x, geometry, x.channels)
    if out is not None:
        require(out.shape == y.shape, "an output of another shape")
        y = out
    builder.require_memory(y.size + geometry.plane)
    if y.size == 0:
        return y
    clip = Clip(op.low, op.high)
    if op.is_max:
        window = SlidingWindow("maximum", x, y, geometry, clip=clip, pad_value=op.pad_value)
    else:
        height, width = spatial(x)
        rows = _inside(geometry.out_height, op.strides[0], op.window[0], geometry.top, height)
        columns = _inside(geometry.out_width, op.strides[1], op.window[1], geometry.left, width)
        window = SlidingWindow("sum", x, y, geometry, 1 / np.outer(rows, columns), clip=clip)
    builder.label(window.emit(builder))
    return y


def _inside(outputs, stride, window, before, size):
    """Counts the pixels of each window inside of the image along one axis, at least 1."""
    first = np.arange(outputs) * stride - before
    return np.maximum(np.minimum(first + window, size) - np.maximum(first, 0), 1)


@lowers(GlobalPool)
def _lower_global_pool(op, builder, x):
    require(len(x.shape) >= 3, "pooling's axes")
    x = builder.to_nchw(x)
    ones = (1,) * (len(x.shape) - 2) if op.keepdims else ()
    y = Tensor((x.batch, *ones, x.channels), "NHWC")
    if y.size and not x.pixels:
        builder.emit(FILL, y=y, size=y.size, value=-np.inf if op.is_max else np.nan)
    elif y.size:
        builder.emit(
            GLOBAL_POOL, x=x, x_sample=x.sample_size, x_plane=x.plane, y=y, batch=x.batch,
            channels=x.channels, pixels=x.pixels, is_max=int(op.is_max),
        )  # fmt: skip
    return y
