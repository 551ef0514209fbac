"""The names of `tfmot.sparsity.keras`. TFMOT code runs with `import keras_trim as tfmot`."""

from keras_trim.callbacks import UpdatePruningStep
from keras_trim.policies import PrunableLayer, PruningPolicy
from keras_trim.pruning import prune_low_magnitude, prune_scope, strip_pruning
from keras_trim.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
from keras_trim.sparsity import unstripped as _unstripped  # noqa: F401 (it registers an error)
from keras_trim.summaries import PruningSummaries
from keras_trim.xnnpack import PruneForLatencyOnXNNPack

__all__ = [
    "ConstantSparsity",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "UpdatePruningStep",
    "prune_low_magnitude",
    "prune_scope",
    "strip_pruning",
]
