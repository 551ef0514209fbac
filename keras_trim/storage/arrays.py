"""Saves a dict of arrays to a file and loads it back."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from keras_trim._version import __version__
from keras_trim.arguments import described, takes_named
from keras_trim.atomic import replace_file
from keras_trim.storage.reader import Reader
from keras_trim.storage.writer import Writer

_WRITERS = {
    **dict.fromkeys((".keras", ".h5"), "`model.save(path)` writes files of Keras"),
    **dict.fromkeys(
        (".tflite", ".onnx", ".xml", ".safetensors"),
        "`keras_trim.export(model, path)` writes files of other runtimes",
    ),
    ".engine": "`keras_trim.inference.Engine(model).save(path)` writes engines",
}


def check_suffix(path):
    """Returns the path as a `pathlib.Path`.

    Raises:
        ValueError: if the path does not end in `.ktrim`.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            "`path` must be the path of a file: the model comes first, the path second. "
            f"Received: path={described(path)}"
        )
    given, path = path, pathlib.Path(path)
    if path.suffix != ".ktrim":
        name = path.with_suffix(".ktrim") if path.name else path / "model.ktrim"
        cure = _WRITERS.get(path.suffix.lower(), f"write {str(name)!r}")
        received = given if path.name else described(given)
        raise ValueError(f"`path` must end in `.ktrim`: {cure}. Received: path={received}")
    return path


def metadata():
    """Dict of strings that every file carries: which program wrote it."""
    return {"writer": f"keras-trim {__version__}"}


@takes_named
def save_arrays(arrays: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Saves a dict of arrays losslessly, bit for bit.

    Args:
        arrays: Dict: name -> array. An array is anything `numpy.asarray` accepts: numbers of any
            dtype, including bfloat16 and float8, and text.
        path: Path. It must end in `.ktrim`. An existing file is replaced atomically.

    Raises:
        ValueError: if a name is not a string or is too long, or if an array holds Python objects
            or has more than 32 axes.
        OSError: if the file cannot be written. An existing file is left unchanged.
        ImportError: if `zstandard` is not installed.

    Example:

    ```python
    keras_trim.save_arrays({"kernel": kernel, "bias": bias}, "weights.ktrim")
    arrays = keras_trim.load_arrays("weights.ktrim")
    ```
    """
    path = check_suffix(path)
    if not isinstance(arrays, dict) or not all(isinstance(k, str) and k for k in arrays):
        raise ValueError(
            "`arrays` must be a dict with strings as keys, `{'kernel': array}`. "
            f"Received: arrays={described(arrays)}"
        )
    with replace_file(path) as file:
        writer = Writer(file)
        for name, values in arrays.items():
            writer.write_array(name, as_array(values))
        writer.finish(metadata())


def as_array(values):
    """Converts a value from Keras or the user to a NumPy array. Text becomes NumPy text."""
    array = np.asarray(values)
    if array.dtype.kind == "T":  # NumPy 2's variable-width strings
        array = array.astype(object)
    for kind in (str, bytes):
        if array.dtype == object and all(isinstance(item, kind) for item in array.flat):
            if any(item[-1:] in ("\0", b"\0") for item in array.flat):
                raise ValueError(
                    "Text that ends in a zero cannot be stored, since NumPy pads text with zeros: "
                    "store bytes as an array of uint8, `numpy.frombuffer(text, 'uint8')`. "
                    f"Received: {described(array)}"
                )
            return array.astype(kind)
    return array


@takes_named
def load_arrays(
    path: str | os.PathLike[str] | BinaryIO, max_bytes: int | None = None
) -> dict[str, np.ndarray]:
    """Loads the arrays of a file written by `save_arrays` or `save`.

    Args:
        path: Path, or a binary file, which is closed at the end.
        max_bytes: Integer. The most bytes the file may decode to; see `load`.

    Returns:
        Dict: name -> `numpy.ndarray`.

    Raises:
        keras_trim.FormatError: if the file is not a `.ktrim` file or is damaged.
        OSError: if the file does not exist or cannot be read.
        ImportError: if `zstandard` is not installed.
    """
    with Reader(path, max_bytes) as reader:
        return {name: reader.read_array(name) for name in reader.arrays}
