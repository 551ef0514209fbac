"""Models as small files: zeros cost next to nothing, and nothing is lost."""

from keras_trim.storage.arrays import load_arrays, save_arrays
from keras_trim.storage.errors import FormatError
from keras_trim.storage.keras_archive import CompressResult, compress_keras
from keras_trim.storage.model import load, save
from keras_trim.storage.result import SavedArray, SaveResult
from keras_trim.storage.sizes import SizeRow, SizeTable, size_table

__all__ = [
    "CompressResult",
    "FormatError",
    "SaveResult",
    "SavedArray",
    "SizeRow",
    "SizeTable",
    "compress_keras",
    "load",
    "load_arrays",
    "save",
    "save_arrays",
    "size_table",
]
