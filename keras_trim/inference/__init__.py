"""Runs pruned Keras models on the CPU and skips the zeros."""

try:
    import numba as _numba  # noqa: F401
    import platformdirs as _platformdirs  # noqa: F401
except ImportError as _error:
    raise ImportError(
        'The inference engine needs Numba and platformdirs: `pip install "keras-trim[inference]"`. '
        f"Importing it failed: {_error}"
    ) from _error

from keras_trim.inference.caches import CacheInfo, cache_dir, cache_info
from keras_trim.inference.engine import Engine
from keras_trim.inference.lowering.tuner import ForcedTuner
from keras_trim.inference.runtime.summary import BenchmarkResult, EngineRow, EngineSummary
from keras_trim.inference.weight_times import weight_times

__all__ = [
    "BenchmarkResult",
    "CacheInfo",
    "Engine",
    "EngineRow",
    "EngineSummary",
    "ForcedTuner",
    "cache_dir",
    "cache_info",
    "weight_times",
]
