"""Models as small files: zeros cost next to nothing, and nothing is lost."""

from keras_trim.storage.arrays import load_arrays, save_arrays
from keras_trim.storage.errors import FormatError
from keras_trim.storage.model import load, save

__all__ = ["FormatError", "load", "load_arrays", "save", "save_arrays"]
