"""Output streams of a command: its result goes to standard output, the rest to standard error.

TensorFlow, JAX and HDF5 print at will, also from C++, which bypasses Python's streams. While they
run, file descriptors 1 and 2 point to the null device, and the command itself writes to duplicates
of the originals.
"""

import contextlib
import faulthandler
import json
import math
import os
import sys
import warnings

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from keras_trim_cli.errors import one_line

_own = []  # the (out, err) of each active `silenced`


def debugging():
    """Whether to show what libraries print, and tracebacks."""
    return bool(os.environ.get("KERAS_TRIM_DEBUG"))


def out():
    """The stream for the result."""
    return _own[-1][0] if _own else sys.stdout


def err():
    """The stream for progress, warnings and errors."""
    return _own[-1][1] if _own else sys.stderr


def print_json(data):
    """Prints the JSON document of a command. JSON has no NaN and infinity: these become null."""
    out().write(json.dumps(_finite(data), indent=2, allow_nan=False) + "\n")
    out().flush()


def _finite(data):
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [*map(_finite, data)]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def console():
    """The `rich.console.Console` for the result; 140 columns wide if it is not a terminal."""
    stream = out()
    width = None if stream.isatty() else 140
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def warn(message):
    """Prints a warning on one line."""
    print(f"keras-trim: warning: {one_line(message)}", file=err(), flush=True)


@contextlib.contextmanager
def progress(description, total=None):
    """Shows a progress bar on standard error, if that is a terminal, until the block ends.

    Args:
        description: String. The task in progress.
        total: Integer. Number of steps, or `None` if unknown.

    Yields:
        Function to call after each step.
    """
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *([BarColumn()] if total else []),
        TimeElapsedColumn(),
        console=Console(file=err()),
        transient=True,
        disable=not err().isatty(),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def silenced():
    """Suppresses the output of libraries, and prints their user warnings on one line each."""
    if debugging():
        yield
        return
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(open(os.devnull, "w"))
        sys.stdout.flush()
        sys.stderr.flush()
        own = _duplicate(sys.stdout, stack), _duplicate(sys.stderr, stack)
        for descriptor in (1, 2):
            _lead_to(sink.fileno(), descriptor, stack)
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        _own.append(own)
        stack.callback(_own.pop)
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _warn_once()
        # Otherwise a crash in C++ would be silent.
        if hasattr(own[1], "fileno") and not faulthandler.is_enabled():
            with contextlib.suppress(OSError):
                faulthandler.enable(own[1].fileno())
                stack.callback(faulthandler.disable)
        yield


def _duplicate(stream, stack):
    """A duplicate of a stream, which redirecting descriptors 1 and 2 does not affect."""
    try:
        descriptor = os.dup(stream.fileno())
    except OSError:  # an in-memory stream without a descriptor
        return stream
    return stack.enter_context(
        open(descriptor, "w", encoding=stream.encoding, errors=stream.errors, buffering=1)
    )


def _lead_to(target, descriptor, stack):
    try:
        saved = os.dup(descriptor)
    except OSError:  # closed
        return
    stack.callback(os.close, saved)
    stack.callback(os.dup2, saved, descriptor)
    os.dup2(target, descriptor)


def _warn_once():
    seen = set()

    def show(message, category, filename, lineno, file=None, line=None):
        # Users can do nothing about the others, such as deprecations in libraries.
        if category is UserWarning and str(message) not in seen:
            seen.add(str(message))
            warn(message)

    return show
