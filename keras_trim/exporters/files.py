"""Writing a file whole or not at all."""

import contextlib
import os
import secrets
import shutil


@contextlib.contextmanager
def replacing(path):
    """Opens a new file that takes the place of `path` when the block ends without an error.

    It is written beside `path` under another name, so that an error, a full disk or a crash leaves
    what was there before.

    Args:
        path: String or path-like. Its folder must exist.

    Yields:
        A binary file, open for writing.

    Raises:
        OSError: if it cannot be written.
    """
    target = os.path.realpath(os.fspath(path))
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
    try:
        if os.path.isdir(target):
            raise IsADirectoryError(None, "it is a folder")
        # Neither truncates a file that somebody else writes, nor follows a link.
        file = open(temporary, "xb")  # noqa: SIM115
    except OSError as error:
        raise _explained(error, path) from error
    try:
        with file:
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(target, temporary)
            yield file
            try:
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise _explained(error, path) from error
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def _explained(error, path):
    reason = error.strerror or str(error)
    message = f"Cannot write the file: {reason}. What was there is as before. Received: path={path}"
    return type(error)(error.errno, message) if error.errno else type(error)(message)


def write(file, data, path):
    """Writes bytes into a file of `replacing`.

    Raises:
        OSError: if they cannot be written, as on a full disk.
    """
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise _explained(error, path) from error
