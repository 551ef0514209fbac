"""Errors on one line."""

import errno
import os
import re

MAX_LENGTH = 400


class CommandError(Exception):
    """A failure with a one-sentence message: printed without a traceback, exit code 1."""


def one_line(text):
    """The text on one line, truncated to `MAX_LENGTH`."""
    text = " ".join(str(text).split())
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 4].rstrip() + " ..."


def system_error(error):
    """The operating system's message, such as "No space left on device", or `None`.

    HDF5 raises long errors without `errno`, but their text contains the number.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in errno.errorcode:
            return os.strerror(error.errno)
        found = re.search(r"errno = (\d+)", str(error))
        if found and int(found[1]) in errno.errorcode:
            return os.strerror(int(found[1]))
        error = error.__cause__ or error.__context__
    return None


def describe(error):
    """An exception of any kind as a readable line."""
    if isinstance(error, CommandError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError):
        reason = system_error(error)
        if reason:
            return f"{reason}: {error.filename}" if error.filename else reason
    if isinstance(error, (ValueError, ImportError, OSError)) and str(error):
        return one_line(error)  # keras_trim's own errors are of these types, and name the cure
    return f"{one_line(f'{type(error).__name__}: {error}')} (KERAS_TRIM_DEBUG=1 shows where)"
