"""Replacing a file so that at any moment either the old or the new one is there, whole."""

import contextlib
import os
import pathlib
import tempfile


@contextlib.contextmanager
def replace_path(path):
    """Gives a path to write to; the file there takes the place of `path` if all went well.

    It is written in a folder beside `path`, made to last and renamed. After an error the folder is
    removed, and what was at `path` is as it was. Only a process that is killed leaves it behind, as
    `.keras-trim-*.tmp`.

    Args:
        path: Path. A symbolic link is followed.

    Raises:
        OSError: if the file cannot be written; it names `path`.
    """
    target = pathlib.Path(os.path.realpath(path))
    folder = None
    try:
        if target.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        # A folder: whatever else a writer puts beside its file goes too.
        with tempfile.TemporaryDirectory(".tmp", ".keras-trim-", target.parent) as folder:
            temporary = pathlib.Path(folder, target.name)
            yield temporary
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())  # else a crash soon after could leave an empty file
            os.chmod(temporary, _mode(target))
            os.replace(temporary, target)
    except OSError as error:
        is_ours = error.filename is None or folder is None or folder in str(error.filename)
        if not is_ours:  # of something that the writer read
            raise
        raise _explained(error, path) from error
    _sync_folder(target.parent)


@contextlib.contextmanager
def replace_file(path):
    """Gives a binary file to write to, which takes the place of `path`; see `replace_path`."""
    with replace_path(path) as temporary, open(temporary, "w+b") as file:
        yield file


def _explained(error, path):
    reason = error.strerror or str(error)
    message = f"Cannot write the file: {reason}. What was there is as before. Received: path={path}"
    return type(error)(error.errno, message) if error.errno else type(error)(message)


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
