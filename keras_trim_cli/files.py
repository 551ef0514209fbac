"""Writes files completely or not at all."""

import contextlib
import os
import pathlib

from keras_trim_cli.errors import CommandError, system_error


def check_output(path, force, inputs=()):
    """Checks an output path before the work.

    Args:
        path: `pathlib.Path` to write.
        force: Boolean. Whether an existing file may be replaced.

    Raises:
        CommandError: if the file cannot be written there.
    """
    folder = pathlib.Path(os.path.realpath(path)).parent  # the target's folder, for a link
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise CommandError(f"cannot write {path}: it is no regular file")
    if path.exists() and not force:
        raise CommandError(f"{path} exists already: give --force to replace it, or another path")
    if not folder.is_dir():
        raise CommandError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"cannot write {path}: the folder {folder} is read-only")


@contextlib.contextmanager
def writing(path):
    """Adds the file's path to system errors during writing."""
    try:
        yield
    except CommandError:
        raise
    except Exception as error:
        reason = system_error(error)
        if reason is None:
            raise
        raise CommandError(f"cannot write {path}: {reason}") from error


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path, which replaces `path` when the block ends without an error.

    Args:
        path: `pathlib.Path`. Does not change before the end of the block, or after an error.
    """
    from keras_trim.atomic import replace_path

    with writing(path), replace_path(path) as temporary:
        yield temporary


def write(path, text):
    """Writes a text file completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
