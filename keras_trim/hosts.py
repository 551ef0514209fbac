"""Weights shared by several processes: reading whole weights and writing one file for all.

On JAX, a weight may be spread over the devices of several processes, so no process can read all of
it. All processes must then call these functions, at the same point of the same program. With one
process, and on the other backends, where each process has whole weights, nothing is communicated.
"""

import contextlib
from unittest import mock

import keras
import numpy as np
from keras import ops

from keras_trim.atomic import replace_file
from keras_trim.backend import BACKEND


def is_shared(value):
    """Whether other processes hold parts of a variable or tensor that this one does not."""
    if BACKEND != "jax":
        return False
    import jax

    value = value.value if isinstance(value, keras.Variable) else value
    return isinstance(value, jax.Array) and not (
        value.is_fully_addressable or value.is_fully_replicated
    )


def to_numpy(value):
    """Returns all of a variable or tensor. If processes share it, all of them must call this."""
    value = value.value if isinstance(value, keras.Variable) else value
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(value).numpy()  # also handles mirrored variables
    if hasattr(value, "full_tensor"):  # a PyTorch tensor spread over devices
        value = value.full_tensor()
    if BACKEND == "torch" and str(value.dtype) != "torch.bfloat16":  # unknown to NumPy
        return np.array(value.detach().cpu().numpy())
    if not is_shared(value):
        return ops.convert_to_numpy(value)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(value, tiled=True)


def whole_variables():
    """Replaces `variable.numpy()`, which Keras uses to save optimizers, by `to_numpy`."""
    return mock.patch.object(keras.Variable, "numpy", to_numpy)


def replace_shared_file(path, shared):
    """Yields a binary file to write to, which then replaces `path`; see `replace_file`.

    If processes share the data, all of them write the same bytes and the first process's file is
    kept. No process continues before it is complete.

    Args:
        path: Path.
        shared: Boolean. Whether processes share the data.

    Raises:
        OSError: if the file cannot be written, on all processes.
    """
    if not shared:
        return replace_file(path)
    import jax

    return _first_file(path) if jax.process_index() == 0 else _no_file(path)


@contextlib.contextmanager
def _first_file(path):
    """Delays an error until everything is written: the other processes do not know of it."""
    file = _CountingFile()
    try:
        with replace_file(path) as file.real:
            yield file
            if file.error is not None:
                raise file.error  # so `replace_file` cleans up
    except OSError as error:
        file.error = error
    if file.real is None:  # the file could not even be opened
        yield file
    _tell_all(file.error is not None)
    if file.error is not None:
        raise file.error


@contextlib.contextmanager
def _no_file(path):
    yield _CountingFile()
    if _tell_all(False):
        raise OSError(f"The first process could not write the file. Received: path={path}")


def _tell_all(failed):
    """Returns what the first process passed. Also acts as a barrier."""
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.int32(failed)))


class _CountingFile:
    """Counts the bytes written, and passes them to a real file as long as that works."""

    def __init__(self):
        self.real = None
        self.error = None
        self._size = 0

    def write(self, data):
        self._size += len(data)
        if self.real is not None and self.error is None:
            try:
                self.real.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def tell(self):
        return self._size
