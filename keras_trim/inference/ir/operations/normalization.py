"""Normalization over the last axis, and over groups of channels."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations.base import Operation
from keras_trim.inference.ir.validation import (
    require,
    require_integers,
    require_number,
    require_weights,
)


@dataclasses.dataclass
class LayerNormalization(Operation):
    """y = (x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta over the last axis.

    Args:
        gamma, beta: Arrays, float32, (last axis,).
        epsilon: Float.
        is_rms: Boolean. RMS normalization: does not subtract the mean.
    """

    gamma: np.ndarray
    beta: np.ndarray
    epsilon: float
    is_rms: bool = False

    def check(self):
        require_weights(self.gamma, None)
        require_weights(self.beta, len(self.gamma))
        require(self.epsilon >= 0, "an epsilon must not be negative")


@dataclasses.dataclass
class GroupNormalization(Operation):
    """y = (x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta over groups of channels.

    Computes the statistics per sample and group, over all pixels and channels of the group. (Wu and
    He, "Group normalization", https://arxiv.org/abs/1803.08494.)

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


@dataclasses.dataclass
class ScaleChannels(Operation):
    """y = x * scale + shift per channel; `rewrites` fold it into the product before it.

    Args:
        scale, shift: Arrays, float32, (channels,).
    """

    scale: np.ndarray
    shift: np.ndarray

    def check(self):
        require_weights(self.scale, None)
        require_weights(self.shift, len(self.scale))
