"""Reads calibration examples from NumPy files."""

import zipfile
import zlib

import numpy as np

from keras_trim_cli.errors import CommandError


def read(path, limit):
    """The array of a .npy file, or of a .npz file with a single one; else a dict of arrays.

    Args:
        path: `pathlib.Path`.
        limit: Integer. How many examples to read, from the start.

    Raises:
        CommandError: if the file holds no arrays.
    """
    arrays = load(path, limit)
    if isinstance(arrays, np.ndarray):
        return arrays
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def load(path, limit=None):
    """The array of a .npy file, or the dict of the arrays of a .npz file.

    Args:
        path: `pathlib.Path`.
        limit: Integer. How many examples to read, from the start. Default: all.

    Raises:
        CommandError: if the file holds no arrays.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded[:limit]
        arrays = {name: loaded[name] for name in loaded.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("it is an archive of other files")
        arrays = {name: array[:limit] for name, array in arrays.items()}
    except (OSError, ValueError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise CommandError(
            f"cannot read {path}: it must be a .npy or .npz file of arrays, an example a row "
            f"({error})"
        ) from error
    if not arrays:
        raise CommandError(f"{path} holds no arrays")
    return arrays
