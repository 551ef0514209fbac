"""Replaces files atomically: at any moment, either the old or the new file is there and whole."""

import contextlib
import functools
import hashlib
import os
import pathlib
import platform
import re
import shutil
import tempfile
import threading
import time

# A writer that we know nothing else about is dead after this long: a live one writes more often.
_DEAD_AFTER = 12 * 3600  # seconds

_NAME = re.compile(r"\.keras-trim-(?:([0-9a-f]{8})-(\d+)-)?\w+\.tmp")
_ours = set()  # names of the folders this process is writing in
_lock = threading.Lock()


@contextlib.contextmanager
def replace_path(path):
    """Yields a path to write to. If the block succeeds, that file replaces `path`.

    The file is written in a temporary folder next to `path`, synced to disk and renamed. After an
    error the folder is removed, and `path` is unchanged. Only a killed process leaves its folder
    behind, as `.keras-trim-*.tmp`; the next writer into the same parent folder removes it.

    Args:
        path: Path. A symbolic link is followed.

    Raises:
        OSError: if the file cannot be written. The error names `path`.
    """
    target = pathlib.Path(os.path.realpath(path))
    folder = None
    try:
        if target.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        if target.exists() and not target.is_file():  # a link to a device, for example
            raise OSError(None, "it is no regular file")
        remove_leftovers(target.parent)
        # A folder, because that also removes whatever else a writer puts next to its file.
        with _temporary_folder(target.parent) as folder:
            temporary = pathlib.Path(folder, target.name)
            yield temporary
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())  # otherwise a crash soon after could leave an empty file
            os.chmod(temporary, _mode(target))
            os.replace(temporary, target)
    except OSError as error:
        is_ours = error.filename is None or folder is None or folder in str(error.filename)
        if not is_ours:  # the error is about a file that the writer read
            raise
        raise _explained(error, path) from error
    _sync_folder(target.parent)


@contextlib.contextmanager
def replace_file(path):
    """Yields a binary file to write to, which then replaces `path`; see `replace_path`."""
    with replace_path(path) as temporary, open(temporary, "w+b") as file:
        yield file


def remove_leftovers(folder):
    """Removes what killed writers have left in a folder.

    This spares writers that may be alive: those of this machine whose process still runs, and those
    of other machines that share the folder, until they have written nothing for half a day.
    """
    for path in pathlib.Path(folder).glob(".keras-trim-*.tmp"):
        if _is_dead(path):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _temporary_folder(parent):
    prefix = f".keras-trim-{_machine()}-{os.getpid()}-"
    with _lock:  # another thread would remove the folder if it saw it before it is listed
        temporary = tempfile.TemporaryDirectory(".tmp", prefix, parent)
        name = os.path.basename(temporary.name)
        _ours.add(name)
    try:
        with temporary as folder:
            yield folder
    finally:
        _ours.discard(name)


def _is_dead(path):
    match = _NAME.fullmatch(path.name)
    with _lock:
        is_ours = path.name in _ours
    if match is None or is_ours:
        return False
    machine, process = match.groups()
    if machine == _machine():
        if int(process) == os.getpid():  # an earlier process, e.g. in a restarted container
            return True
        if not _is_running(int(process)):
            return True
    try:
        latest = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except OSError:  # it is being removed right now
        return False
    return time.time() - latest > _DEAD_AFTER


@functools.cache
def _machine():
    """Returns 8 hex digits that identify a scope of process ids: this machine or container."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not on Linux
        namespace = ""
    return hashlib.blake2b(f"{platform.node()} {namespace}".encode(), digest_size=4).hexdigest()


def _is_running(process):
    if os.name != "posix":  # on Windows, signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # the process belongs to another user
        return True
    return True


def _explained(error, path):
    reason = error.strerror or str(error)
    message = f"Cannot write the file: {reason}. What was there is as before. Received: path={path}"
    return type(error)(error.errno, message) if error.errno else type(error)(message)


def _mode(path):
    """Returns the permissions of the file, or those that a new file gets."""
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
