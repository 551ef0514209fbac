"""Replacing a file so that at any moment either the old or the new one is there, whole."""

import contextlib
import os
import pathlib
import tempfile


@contextlib.contextmanager
def replace_file(path):
    """Gives a binary file to write to, which takes the place of `path` if all went well.

    It is written beside `path`, made to last and renamed. After an error it is removed, and what
    was at `path` is as it was. Only a process that is killed leaves it behind, as `.NAME.*.tmp`.

    Args:
        path: Path. A symbolic link is followed.
    """
    path = pathlib.Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"A folder is in the way of the file. Received: path={path}")
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            os.chmod(temporary, _mode(path))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _mode(path):
    """The permissions of the file, or those that a new file gets."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(path):
    if hasattr(os, "O_DIRECTORY"):  # not on Windows
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
