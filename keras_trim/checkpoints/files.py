"""The files of a folder of checkpoints: which is the newest, writing one, which ones are kept."""

import contextlib
import json
import pathlib
import re
import sys

from keras_trim import atomic
from keras_trim.storage.arrays import metadata
from keras_trim.storage.container import Reader, Writer
from keras_trim.storage.errors import FormatError

_NAME = re.compile(r"checkpoint-(\d+)\.ktrim")
_TRAINING = "training.json"


def find(directory):
    """List of the paths of the checkpoints in a folder, the newest first."""
    found = {}
    for path in pathlib.Path(directory).glob("checkpoint-*.ktrim"):
        match = _NAME.fullmatch(path.name)
        if match:
            found[path] = int(match.group(1))
    return sorted(found, key=found.get, reverse=True)


def write(directory, batches, arrays, training):
    """Writes a checkpoint, which is there as a whole or not at all.

    Args:
        directory: Path. It is made if it is missing.
        batches: Integer. How many batches have been trained on.
        arrays: Dict: name -> `numpy.ndarray`.
        training: Value of JSON types.

    Returns:
        `pathlib.Path` of the file.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"checkpoint-{batches:010d}.ktrim"
    with atomic.replace_file(path) as file:
        writer = Writer(file)
        for name, array in arrays.items():
            writer.write_array(name, array)
        writer.write_file(_TRAINING, json.dumps(training).encode())
        writer.finish(metadata())
    return path


@contextlib.contextmanager
def reading(path):
    """Gives the `Reader` of a checkpoint, and what it holds beside arrays.

    Raises:
        keras_trim.FormatError: if the file is damaged.
    """
    with Reader(path, max_bytes=sys.maxsize) as reader:
        if _TRAINING not in reader.files:
            raise FormatError("The file is no checkpoint: it says nothing of training.")
        try:
            training = json.loads(reader.read_file(_TRAINING))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise FormatError(f"The file is damaged: {error}") from error
        yield reader, training


def remove_older(directory, max_to_keep, damaged=()):
    """Keeps so many of the newest checkpoints, but none of those that are known to be damaged."""
    kept = 0
    for path in find(directory):
        kept += path not in damaged
        if path in damaged or kept > max_to_keep:
            path.unlink(missing_ok=True)
