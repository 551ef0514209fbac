"""Trim insignificant weights of Keras 3 models, on JAX, TensorFlow and PyTorch."""

from keras_trim import sparsity as sparsity
from keras_trim._version import __version__ as __version__
from keras_trim.callbacks import PruningSummaries, UpdatePruningStep
from keras_trim.optimizer import PruningOptimizer
from keras_trim.policies import PrunableLayer, PruningPolicy
from keras_trim.pruning import prune, prune_low_magnitude, prune_scope, strip_pruning
from keras_trim.report import SparsityReport, sparsity_report
from keras_trim.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
from keras_trim.storage import FormatError, load, load_arrays, save, save_arrays
from keras_trim.xnnpack import PruneForLatencyOnXNNPack

__all__ = [
    "ConstantSparsity",
    "FormatError",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "PruningOptimizer",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "SparsityReport",
    "UpdatePruningStep",
    "load",
    "load_arrays",
    "prune",
    "prune_low_magnitude",
    "prune_scope",
    "save",
    "save_arrays",
    "sparsity_report",
    "strip_pruning",
]
