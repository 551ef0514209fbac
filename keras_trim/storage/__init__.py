"""Lossless storage of models as small files; zeros cost almost nothing.

Names are imported on first use, so the engine can read arrays without importing Keras.
"""

import importlib
import typing

if typing.TYPE_CHECKING:  # what type checkers and the reference read
    from keras_trim.storage.arrays import load_arrays as load_arrays
    from keras_trim.storage.arrays import save_arrays as save_arrays
    from keras_trim.storage.errors import FormatError as FormatError
    from keras_trim.storage.keras_archive import CompressResult as CompressResult
    from keras_trim.storage.keras_archive import compress_keras as compress_keras
    from keras_trim.storage.model import load as load
    from keras_trim.storage.model import save as save
    from keras_trim.storage.result import SavedArray as SavedArray
    from keras_trim.storage.result import SaveResult as SaveResult

_MODULES = {
    "CompressResult": "keras_archive",
    "FormatError": "errors",
    "SaveResult": "result",
    "SavedArray": "result",
    "compress_keras": "keras_archive",
    "load": "model",
    "load_arrays": "arrays",
    "save": "model",
    "save_arrays": "arrays",
}
__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
