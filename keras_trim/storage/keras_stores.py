"""Keras's stores of a model's state, backed by our files instead of HDF5.

Keras walks a model and hands each layer, optimizer and metric a store that acts as a dict. It only
accepts its own store classes, so ours subclass one and override all of it.
"""

import posixpath

from keras import ops
from keras.src.saving.saving_lib import H5IOStore

from keras_trim.hosts import is_shared, to_numpy
from keras_trim.storage.arrays import as_array

_MOST_WAITING = 32


class _Store(H5IOStore):
    """Arrays by path: the object's path plus its name for the array, as in a `.keras` file."""

    def __init__(self):  # the parent's `__init__` would open a file
        self._folder = ""

    def __bool__(self):
        return True

    def _path(self, key):
        return posixpath.join(self._folder, "vars", str(key))

    def close(self):
        pass

    def __len__(self):
        return len(self.keys())

    def __contains__(self, key):
        return str(key) in self.keys()


class WriteStore(_Store):
    """Receives the arrays that a model saves.

    An object may replace or delete what its superclass has saved. So arrays wait until the object
    has saved several more, or until the next object. `close` passes on those of the last object.

    Args:
        write: Function of a name and a `numpy.ndarray`.
    """

    mode = "w"

    def __init__(self, write):
        super().__init__()
        self._write = write
        self._waiting = {}

    def make(self, path, metadata=None):
        self.close()
        self._folder = path
        return self

    def close(self):
        while self._waiting:
            self._write_first()

    def _write_first(self):
        key = next(iter(self._waiting))
        self._write(self._path(key), self._waiting.pop(key))

    def __setitem__(self, key, value):
        # A kernel plus its LoRA is a tensor that still has gradients on PyTorch.
        is_tensor = ops.is_tensor(value) or is_shared(value)
        self._waiting[str(key)] = as_array(to_numpy(value) if is_tensor else value)
        if len(self._waiting) > _MOST_WAITING:  # an optimizer's arrays are as large as the model
            self._write_first()

    def __getitem__(self, key):
        return self._waiting[str(key)]

    def __delitem__(self, key):
        del self._waiting[str(key)]

    def keys(self):
        return list(self._waiting)


class ReadStore(_Store):
    """Serves the arrays that a model loads. Each array is decoded on request.

    Args:
        names: Iterable of strings: the names of the arrays in the file.
        read: Function of a name that returns a `numpy.ndarray`.
    """

    mode = "r"

    def __init__(self, names, read):
        super().__init__()
        self._read = read
        self._keys = {}
        self._folders = set()
        self.unread = set(names)
        for name in names:
            # A layer may save keys with slashes in them.
            folder, _, key = f"/{name}".rpartition("/vars/")
            self._keys.setdefault(folder.removeprefix("/"), []).append(key)
            folder = name.rpartition("/")[0]
            while folder:
                self._folders.add(folder)
                folder = folder.rpartition("/")[0]

    def get(self, path):
        self._folder = path
        return self

    def __getitem__(self, key):
        if key not in self:
            raise KeyError(key)
        name = self._path(key)
        self.unread.discard(name)
        return self._read(name)

    def keys(self):
        return list(self._keys.get(self._folder, ()))

    def has_path(self, path):
        return path in self._folders
