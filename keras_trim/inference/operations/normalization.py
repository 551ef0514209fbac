"""Normalization over the last axis, and over groups of channels."""

import dataclasses

import numpy as np

from keras_trim.inference.operations.base import (
    Operation,
    require,
    require_integers,
    require_number,
    require_weights,
)
from keras_trim.inference.tensors import Tensor

_LEAST_EPSILON = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass
class LayerNormalization(Operation):
    """y = (x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta over the last axis.

    Args:
        gamma, beta: Arrays, float32, (last axis,).
        epsilon: Float.
        is_rms: Boolean. Without subtracting the mean.
    """

    gamma: np.ndarray
    beta: np.ndarray
    epsilon: float
    is_rms: bool = False

    def check(self):
        require_weights(self.gamma, None)
        require_weights(self.beta, len(self.gamma))
        require(self.epsilon >= 0, "an epsilon must not be negative")

    def lower(self, builder, x):
        require(x.channels == len(self.gamma), "a normalization's channels")
        x = builder.rows(x)
        y = Tensor(x.shape, "rows")
        if x.size:
            width = x.shape[-1]
            gamma, beta = builder.constant(self.gamma), builder.constant(self.beta)
            builder.emit(
                "layer_norm",
                [x, y, x.size // width, width, gamma, beta, int(self.is_rms)],
                [max(self.epsilon, _LEAST_EPSILON)],  # the kernel divides
            )
        return y


@dataclasses.dataclass
class GroupNormalization(Operation):
    """y = (x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta over groups of channels.

    The statistics are those of the pixels of all channels of a group, per sample. (Wu and He,
    "Group normalization", https://arxiv.org/abs/1803.08494.)

    Args:
        gamma, beta: Arrays, float32, (channels,).
        epsilon: Float.
        groups: Integer, a divisor of the channels.
    """

    gamma: np.ndarray
    beta: np.ndarray
    epsilon: float
    groups: int

    def check(self):
        require_weights(self.gamma, None)
        require_weights(self.beta, len(self.gamma))
        require_number(self.epsilon)
        require_integers((self.groups,), 1, 1)
        require(len(self.gamma) % self.groups == 0, "channels must be a multiple of groups")

    def lower(self, builder, x):
        require(len(x.shape) >= 3 and x.channels == len(self.gamma), "a normalization's channels")
        x = builder.planes(x)
        y = Tensor(x.shape, "planes")
        if y.size:
            builder.emit(
                "group_norm",
                [
                    x, y, x.plane, x.pixels, x.batch, self.groups, x.channels // self.groups,
                    builder.constant(self.gamma), builder.constant(self.beta),
                ],
                [self.epsilon],
            )  # fmt: skip
        return y


@dataclasses.dataclass
class ScaleChannels(Operation):
    """y = x * scale + shift per channel; `fusion.py` folds it into a product before it.

    Args:
        scale, shift: Arrays, float32, (channels,).
    """

    scale: np.ndarray
    shift: np.ndarray

    def check(self):
        require_weights(self.scale, None)
        require_weights(self.shift, len(self.scale))

    def lower(self, builder, x):
        require(x.channels == len(self.scale), "a scale's channels")
        y = Tensor(x.shape, x.layout)
        if y.size:
            planes = x.layout == "planes"
            width = x.plane if planes else x.channels
            scale, shift = builder.constant(self.scale), builder.constant(self.shift)
            channels = x.channels if planes else 0
            builder.emit("scale", [x, y, x.size // width, width, scale, shift, channels])
        return y
