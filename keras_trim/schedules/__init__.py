"""Pruning schedules: for each training step, whether to prune now and how sparse."""

from keras_trim.schedules.base import (
    PruningSchedule,
    SteppedSchedule,
    is_known_ahead,
    validate_sparsity,
)
from keras_trim.schedules.constant import ConstantSparsity
from keras_trim.schedules.keep_zeros import KeepZeros
from keras_trim.schedules.polynomial import PolynomialDecay

__all__ = [
    "ConstantSparsity",
    "KeepZeros",
    "PolynomialDecay",
    "PruningSchedule",
    "SteppedSchedule",
    "is_known_ahead",
    "validate_sparsity",
]
