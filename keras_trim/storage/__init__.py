"""Models as small files: zeros cost next to nothing, and nothing is lost.

Names are imported when they are used: the engine reads arrays where there is no Keras.
"""

import importlib

_MODULES = {
    "CompressResult": "keras_archive",
    "FormatError": "errors",
    "SaveResult": "result",
    "SavedArray": "result",
    "SizeRow": "sizes",
    "SizeTable": "sizes",
    "compress_keras": "keras_archive",
    "load": "model",
    "load_arrays": "arrays",
    "save": "model",
    "save_arrays": "arrays",
    "size_table": "sizes",
}
__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
