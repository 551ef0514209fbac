"""Weights that several processes share: reading them whole, and writing one file for all.

On JAX a weight may be spread over devices of several processes, and then no process can read all of
it. What is here is called by all of them, at the same place of the same program. With one process,
and on the other backends, where each process has whole weights, nothing is sent to anyone.
"""

import contextlib
from unittest import mock

import keras
import numpy as np
from keras import ops

from keras_trim.atomic import replace_file
from keras_trim.backend import BACKEND


def is_shared(value):
    """Whether other processes hold parts of a variable or tensor that are not here."""
    if BACKEND != "jax":
        return False
    import jax

    value = value.value if isinstance(value, keras.Variable) else value
    return isinstance(value, jax.Array) and not (
        value.is_fully_addressable or value.is_fully_replicated
    )


def to_numpy(value):
    """Array: all of a variable or tensor. Where processes share it, all of them must call this."""
    value = value.value if isinstance(value, keras.Variable) else value
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(value).numpy()  # of a mirrored variable, too
    if hasattr(value, "full_tensor"):  # of PyTorch, spread over devices
        value = value.full_tensor()
    if BACKEND == "torch" and str(value.dtype) != "torch.bfloat16":  # which NumPy does not know
        return np.array(value.detach().cpu().numpy())
    if not is_shared(value):
        return ops.convert_to_numpy(value)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(value, tiled=True)


def whole_variables():
    """Within it `variable.numpy()`, by which Keras's optimizers are saved, is `to_numpy`."""
    return mock.patch.object(keras.Variable, "numpy", to_numpy)


def replace_shared_file(path, shared):
    """Gives a binary file to write to, which takes the place of `path`; see `replace_file`.

    Where processes share what is written, all of them write the same, and the first one's file
    stays. No process goes on before that is complete.

    Args:
        path: Path.
        shared: Boolean. Whether processes share what is written.

    Raises:
        OSError: if the file cannot be written; on all processes then.
    """
    if not shared:
        return replace_file(path)
    import jax

    return _first_file(path) if jax.process_index() == 0 else _no_file(path)


@contextlib.contextmanager
def _first_file(path):
    """An error waits until all is written, as the other processes do not know of it."""
    file = _CountingFile()
    try:
        with replace_file(path) as file.real:
            yield file
            if file.error is not None:
                raise file.error  # so that `replace_file` tidies up
    except OSError as error:
        file.error = error
    if file.real is None:  # it could not even be opened
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
    """Boolean: what the first process says. A barrier, too."""
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.int32(failed)))


class _CountingFile:
    """Counts what is written, and passes it on to a real file as long as that works."""

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
