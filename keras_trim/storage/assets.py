"""Files that layers save next to their weights, such as vocabularies."""

import contextlib
import pathlib
import tempfile

from keras.src.saving.saving_lib import DiskIOStore

PREFIX = "assets/"


@contextlib.contextmanager
def collecting():
    """Yields a store for a model's assets, and a function that yields their names and bytes."""
    store = DiskIOStore("assets", mode="w")
    folder = pathlib.Path(store.working_dir)

    def files():
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield PREFIX + path.relative_to(folder).as_posix(), path.read_bytes()

    try:
        yield store, files
    finally:
        store.close()


@contextlib.contextmanager
def providing(reader):
    """Yields a store of a file's assets, or `None` if it has none.

    Args:
        reader: `Reader`. It has already checked that no name leads out of its folder.
    """
    names = [name for name in reader.files if name.startswith(PREFIX)]
    if not names:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = pathlib.Path(folder, *name.removeprefix(PREFIX).split("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reader.read_file(name))
        yield DiskIOStore(folder, mode="r")
