"""Normalization over the last axis, and over groups of channels."""

import numpy as np

from keras_trim.inference.ir.operations.normalization import (
    GroupNormalization,
    LayerNormalization,
    ScaleChannels,
)
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import GROUP_NORM, LAYER_NORM, SCALE
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.program.tensors import Tensor

_LEAST_EPSILON = float(np.finfo(np.float32).tiny)


@lowers(LayerNormalization)
def _lower_layer_normalization(op, builder, x):
    require(x.channels == len(op.gamma), "a normalization's channels")
    x = builder.to_nhwc(x)
    y = Tensor(x.shape, "NHWC")
    if x.size:
        width = x.shape[-1]
        gamma, beta = builder.constant(op.gamma), builder.constant(op.beta)
        builder.emit(
            LAYER_NORM, x=x, y=y, rows=x.size // width, width=width, gamma=gamma, beta=beta,
            is_rms=int(op.is_rms), epsilon=max(op.epsilon, _LEAST_EPSILON),  # the kernel divides
        )  # fmt: skip
    return y


@lowers(GroupNormalization)
def _lower_group_normalization(op, builder, x):
    require(len(x.shape) >= 3 and x.channels == len(op.gamma), "a normalization's channels")
    x = builder.to_nchw(x)
    y = Tensor(x.shape, "NCHW")
    if y.size:
        builder.emit(
            GROUP_NORM, x=x, y=y, plane=x.plane, pixels=x.pixels, batch=x.batch, groups=op.groups,
            width=x.channels // op.groups, gamma=builder.constant(op.gamma),
            beta=builder.constant(op.beta), epsilon=op.epsilon,
        )  # fmt: skip
    return y


@lowers(ScaleChannels)
def _lower_scale_channels(op, builder, x):
    require(x.channels == len(op.scale), "a scale's channels")
    y = Tensor(x.shape, x.layout)
    if y.size:
        planes = x.layout == "NCHW"
        width = x.plane if planes else x.channels
        scale, shift = builder.constant(op.scale), builder.constant(op.shift)
        channels = x.channels if planes else 0
        builder.emit(
            SCALE, x=x, y=y, rows=x.size // width, width=width, scale=scale, shift=shift,
            channels=channels,
        )  # fmt: skip
    return y
