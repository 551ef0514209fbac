"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile

from keras_trim_cli.errors import CommandError, system_error


def check_output(path, force, inputs=()):
    """Checks what can be known of an output before the work.

    Args:
        path: `pathlib.Path` to write.
        force: Boolean. Whether an existing file may be replaced.

    Raises:
        CommandError: if the file cannot be written there.
    """
    folder = _target(path).parent
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise CommandError(f"cannot write {path}: it is no regular file")
    if path.exists() and not force:
        raise CommandError(f"{path} exists already: give --force to replace it, or another path")
    if not folder.is_dir():
        raise CommandError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"cannot write {path}: the folder {folder} is read-only")


@contextlib.contextmanager
def replacing(path):
    """Yields a path to write to; the file takes its place when the block ends without an error.

    Args:
        path: `pathlib.Path`. Until then, and after an error, what was there is left as it was.
    """
    target = _target(path)
    try:
        # A folder: whatever else a writer puts beside its file goes too.
        with tempfile.TemporaryDirectory(prefix=".keras-trim-", dir=target.parent) as folder:
            temporary = pathlib.Path(folder, target.name)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # else a crash soon after could leave an empty file
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
    except CommandError:
        raise
    except Exception as error:
        reason = system_error(error)
        if reason is None:
            raise
        raise CommandError(f"cannot write {path}: {reason}") from error


def write(path, text):
    """Writes a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _target(path):
    """The file itself where `path` is a link."""
    return pathlib.Path(os.path.realpath(path))
