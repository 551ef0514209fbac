"""Trim insignificant weights of Keras 3 models, on JAX, TensorFlow and PyTorch."""

import difflib
import importlib
import typing

from keras_trim._version import __version__ as __version__

try:
    import keras as _keras  # noqa: F401
except ImportError as _error:  # a machine that only runs engines needs no Keras backend
    _no_keras = _error
else:
    _no_keras = None
    from keras_trim import persistence as _persistence
    from keras_trim import sparsity as sparsity
    from keras_trim.callbacks import UpdatePruningStep
    from keras_trim.optimizer import PruningOptimizer
    from keras_trim.policies import PrunableLayer, PruningPolicy
    from keras_trim.pruner import Pruner
    from keras_trim.pruning import prune_low_magnitude, prune_scope, strip_pruning
    from keras_trim.report import SparsityReport, sparsity_report
    from keras_trim.schedules import ConstantSparsity, KeepZeros, PolynomialDecay, PruningSchedule
    from keras_trim.summaries import PruningSummaries
    from keras_trim.xnnpack import PruneForLatencyOnXNNPack

    _persistence.install()

if typing.TYPE_CHECKING:  # imported when they are used: see `_MODULES`
    from keras_trim.checkpoints import Checkpoint
    from keras_trim.compatibility import DeploymentReport, check
    from keras_trim.distributions import Allocation
    from keras_trim.exporters import ExportedFile, export
    from keras_trim.one_shot import Sensitivity, budget, prune, sensitivity
    from keras_trim.sizes import SizeTable, size_table
    from keras_trim.speed import SpeedReport, bench
    from keras_trim.storage import (
        FormatError,
        compress_keras,
        load,
        load_arrays,
        save,
        save_arrays,
    )

# Module -> names that training does not need, so that `import keras_trim` is quick.
_MODULES = {
    "checkpoints": ("Checkpoint",),
    "compatibility": ("DeploymentReport", "check"),
    "distributions": ("Allocation",),
    "exporters": ("ExportedFile", "export"),
    "one_shot": ("Sensitivity", "budget", "prune", "sensitivity"),
    "sizes": ("SizeTable", "size_table"),
    "speed": ("SpeedReport", "bench"),
    "storage": (
        "FormatError",
        "compress_keras",
        "load",
        "load_arrays",
        "save",
        "save_arrays",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = (*_MODULES, "inference", "plots")

__all__ = [
    "Allocation",
    "Checkpoint",
    "ConstantSparsity",
    "DeploymentReport",
    "ExportedFile",
    "FormatError",
    "KeepZeros",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "Pruner",
    "PruningOptimizer",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "Sensitivity",
    "SizeTable",
    "SparsityReport",
    "SpeedReport",
    "UpdatePruningStep",
    "bench",
    "budget",
    "check",
    "compress_keras",
    "export",
    "load",
    "load_arrays",
    "prune",
    "prune_low_magnitude",
    "prune_scope",
    "save",
    "save_arrays",
    "sensitivity",
    "size_table",
    "sparsity_report",
    "strip_pruning",
]


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"keras_trim.{name}")
    if _no_keras is not None and name in __all__:
        raise ImportError(
            f"`keras_trim.{name}` needs Keras and the backend that it runs on: "
            '`pip install "keras-trim[jax]"`, and `KERAS_BACKEND=jax` in the environment (without '
            f"it, Keras looks for TensorFlow). Importing Keras failed: {_no_keras}"
        ) from _no_keras
    if name in _MODULE_OF:
        module = importlib.import_module(f"keras_trim.{_MODULE_OF[name]}")
        globals()[name] = getattr(module, name)
        return globals()[name]
    raise AttributeError(f"module 'keras_trim' has no attribute '{name}'{_meant(name)}")


def __dir__():
    return sorted([*__all__, "__version__", "inference", "plots", "sparsity"])


def _meant(name):
    """A guess of what somebody was looking for."""
    if name in ("Engine", "engine"):
        return ": the engine is `keras_trim.inference.Engine`"
    close = difflib.get_close_matches(name, __dir__(), 1)
    return f": did you mean `keras_trim.{close[0]}`?" if close else ""
