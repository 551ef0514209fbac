"""Replacing a file so that at any moment either the old or the new one is there, whole."""

import contextlib
import functools
import hashlib
import os
import pathlib
import platform
import re
import shutil
import tempfile
import time

# Of a writer of which nothing else is known: one that is alive writes more often than that.
_DEAD_AFTER = 12 * 3600  # seconds

_NAME = re.compile(r"\.keras-trim-(?:([0-9a-f]{8})-(\d+)-)?\w+\.tmp")
_ours = set()  # names of the folders that this process is writing in


@contextlib.contextmanager
def replace_path(path):
    """Gives a path to write to; the file there takes the place of `path` if all went well.

    It is written in a folder beside `path`, made to last and renamed. After an error the folder is
    removed, and what was at `path` is as it was. Only a process that is killed leaves it behind, as
    `.keras-trim-*.tmp`, for the next writer into the same folder to remove.

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
        remove_leftovers(target.parent)
        # A folder: whatever else a writer puts beside its file goes too.
        with _temporary_folder(target.parent) as folder:
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


def remove_leftovers(folder):
    """Removes what writers that were killed have left in a folder.

    A writer that may be alive is left alone: one of this machine whose process still runs, or one
    of another machine that shares the folder, until it has written nothing for half a day.
    """
    for path in pathlib.Path(folder).glob(".keras-trim-*.tmp"):
        if _is_dead(path):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _temporary_folder(parent):
    prefix = f".keras-trim-{_machine()}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(".tmp", prefix, parent) as folder:
        name = os.path.basename(folder)
        _ours.add(name)
        try:
            yield folder
        finally:
            _ours.discard(name)


def _is_dead(path):
    match = _NAME.fullmatch(path.name)
    if match is None or path.name in _ours:
        return False
    machine, process = match.groups()
    if machine == _machine():
        if int(process) == os.getpid():  # an earlier process, as in a container started again
            return True
        if not _is_running(int(process)):
            return True
    try:
        latest = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except OSError:  # it is just being removed
        return False
    return time.time() - latest > _DEAD_AFTER


@functools.cache
def _machine():
    """8 hexadecimal digits for where process ids mean the same: this machine, or container."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not on Linux
        namespace = ""
    return hashlib.blake2b(f"{platform.node()} {namespace}".encode(), digest_size=4).hexdigest()


def _is_running(process):
    if os.name != "posix":  # where signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user
        return True
    return True


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
