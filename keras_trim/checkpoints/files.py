"""The files in a folder of checkpoints: finding the newest, writing one, removing old ones."""

import contextlib
import errno
import json
import os
import pathlib
import re
import sys

from keras_trim import atomic
from keras_trim.storage.arrays import metadata
from keras_trim.storage.errors import FormatError
from keras_trim.storage.reader import Reader
from keras_trim.storage.writer import Writer

_NAME = re.compile(r"checkpoint-(\d+)\.ktrim")
_TRAINING = "training.json"


def find(directory):
    """Lists the paths of the checkpoints in a folder, newest first."""
    found = {}
    for path in pathlib.Path(directory).glob("checkpoint-*.ktrim"):
        match = _NAME.fullmatch(path.name)
        if match:
            found[path] = int(match.group(1))
    return sorted(found, key=found.get, reverse=True)


def make_folder(directory):
    """Creates the folder, if it is missing.

    Raises:
        OSError: if it cannot be created or written to.
    """
    try:
        pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise type(error)(
            error.errno,
            f"Checkpoints cannot be written to this folder: {error.strerror}. "
            f"Received: directory={directory}",
        ) from error


def write(directory, batches, arrays, training):
    """Writes a checkpoint atomically.

    Args:
        directory: Path of a folder.
        batches: Integer. The number of batches trained on so far.
        arrays: Dict: name -> `numpy.ndarray`.
        training: JSON-serializable value.

    Returns:
        `pathlib.Path` of the file.
    """
    make_folder(directory)  # again, as somebody may have removed it
    path = pathlib.Path(directory) / f"checkpoint-{batches:010d}.ktrim"
    with atomic.replace_file(path) as file:
        writer = Writer(file)
        for name, array in arrays.items():
            writer.write_array(name, array)
        writer.write_file(_TRAINING, json.dumps(training).encode())
        writer.finish(metadata())
    return path


@contextlib.contextmanager
def reading(path):
    """Yields the `Reader` of a checkpoint and its record of training.

    Raises:
        keras_trim.FormatError: if the file is damaged.
    """
    with Reader(path, max_bytes=sys.maxsize) as reader:
        if _TRAINING not in reader.files:
            raise FormatError(f"The file is not a checkpoint: it has no {_TRAINING}.")
        try:
            training = json.loads(reader.read_file(_TRAINING))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise FormatError(f"The file is damaged: {error}") from error
        yield reader, training


def remove_older(directory, max_to_keep, damaged=()):
    """Keeps the newest `max_to_keep` checkpoints, and removes older and damaged ones."""
    kept = 0
    for path in find(directory):
        kept += path not in damaged
        if path in damaged or kept > max_to_keep:
            path.unlink(missing_ok=True)
