"""Depthwise convolution, and scaling of channels as its 1 x 1 case."""

from keras_trim.inference.ir.operations.depthwise import DepthwiseConvolution
from keras_trim.inference.ir.validation import require
from keras_trim.inference.lowering.clip import Clip
from keras_trim.inference.lowering.geometry import Geometry, output_tensor
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.lowering.sliding_window import SlidingWindow


@lowers(DepthwiseConvolution)
def _lower_depthwise_convolution(op, builder, x, *, out=None):
    channels = op.kernel.shape[2]
    require(len(x.shape) in (3, 4) and x.channels == channels, "a convolution's channels")
    x = builder.to_nchw(x)
    geometry = Geometry(x, op.window, op.strides, op.dilation, op.padding)
    y = output_tensor(x, geometry, channels * op.kernel.shape[3])
    if out is not None:
        require(out.shape == y.shape, "an output of another shape")
        y = out
    if y.size == 0:
        return y
    kernel = op.kernel.reshape(-1, op.bias.size).T
    window = SlidingWindow(
        "product", x, y, geometry, kernel, op.bias, Clip(op.low, op.high)
    )  # fmt: skip
    builder.label(f"depthwise, {window.emit(builder)}")
    return y
