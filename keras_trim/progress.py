"""One line that says what takes long, and how far it is: in a terminal, and in a notebook.

Work that is done within two seconds says nothing, and what is silenced silences all within it. Only
one line is shown at a time: that of the innermost work. Where output goes to a file, nothing is
shown unless `verbose` asks for it.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

DELAY = 2.0  # seconds of silence
_PERIOD = 0.25  # seconds between updates
_LEAST_SHARE = 0.02  # done, for a guess of the time that is left


def stderr() -> IO[str]:
    return sys.stderr


# Where lines go. The command line leads them past what it silences.
stream: Callable[[], IO[str]] = stderr


class Progress:
    """How far some work is.

    Args:
        description: String. What is being done, such as `"compiling kernels"`.
        total: Integer, or `None` if it is not known.
    """

    def __init__(self, description: str, total: int | None = None) -> None:
        self.description, self.total, self.done = description, total, 0
        self._began = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Notes that some of it is done."""
        self.done += count
        if self.total is not None:
            self.total = max(self.total, self.done)

    def text(self) -> str:
        """`"compiling kernels: 12 of 40, 0:25 left"`."""
        passed = time.monotonic() - self._began
        if not self.total:
            return f"{self.description} ({_minutes(passed)})"
        told = f"{self.description}: {self.done} of {self.total}"
        if self.done < _LEAST_SHARE * self.total or self.done == self.total:
            return told
        return f"{told}, {_minutes(passed / self.done * (self.total - self.done))} left"


class _Line:
    """The line that is shown, and the thread that keeps it up to date."""

    def __init__(self) -> None:
        self.works: list[Progress] = []  # the innermost last
        self.silenced = 0  # how many of those around say nothing
        self._thread: threading.Thread | None = None
        self._end = threading.Event()

    def push(self, work: Progress, is_forced: bool) -> None:
        self.works.append(work)
        if self._thread is None:
            show = _shower(is_forced)
            if show is not None:
                self._end = threading.Event()
                arguments = (self._end, show)
                self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
                self._thread.start()

    def pop(self, work: Progress) -> None:
        self.works.remove(work)
        if not self.works and self._thread is not None:
            self._end.set()
            self._thread.join()
            self._thread = None

    def _run(self, end: threading.Event, show: Callable[[str | None], None]) -> None:
        if end.wait(DELAY):
            return
        while not end.wait(_PERIOD):
            with contextlib.suppress(IndexError):  # the work ended just now
                show(self.works[-1].text())
        show(None)


_line = _Line()
_lock = threading.RLock()


@contextlib.contextmanager
def progress(
    description: str, total: int | None = None, verbose: str | bool | int = "auto"
) -> Iterator[Progress]:
    """Shows how far some work is, once it has taken two seconds, and until the block ends.

    Args:
        description: String. What is being done, such as `"compiling kernels"`.
        total: Integer. Number of steps, or `None` if it is not known.
        verbose: `"auto"` (in a terminal and in a notebook), `True` (in a file too) or `False`.

    Yields:
        `Progress`, whose `advance` is to be called after each step.
    """
    check_verbose(verbose)
    work = Progress(description, total)
    is_silent = verbose != "auto" and not verbose
    with _lock:
        is_silent = is_silent or _line.silenced > 0
        if is_silent:
            _line.silenced += 1
        else:
            _line.push(work, verbose != "auto")
    try:
        yield work
    finally:
        with _lock:
            if is_silent:
                _line.silenced -= 1
            else:
                _line.pop(work)


def check_verbose(verbose: Any) -> None:
    """Raises `ValueError` unless an argument `verbose` is `"auto"`, `True` or `False`."""
    if verbose not in ("auto", True, False):
        raise ValueError(f"`verbose` must be 'auto', True or False. Received: verbose={verbose!r}")


def _shower(is_forced: bool) -> Callable[[str | None], None] | None:
    """A function that shows a text, and takes it away for `None`; or `None`, if nobody looks."""
    notebook = _in_notebook()
    if notebook is not None:
        return notebook
    out = stream()
    if out is not None and out.isatty():
        return lambda text: _write(out, f"\r\x1b[K{text or ''}")
    if not is_forced:
        return None
    said: set[str] = set()

    def once(text: str | None) -> None:
        description = text and text.partition(":")[0].partition(" (")[0]
        if description and description not in said:
            said.add(description)
            _write(out, f"{description} ...\n")

    return once


def _write(out: IO[str], text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        out.write(text)
        out.flush()


def _in_notebook() -> Callable[[str | None], None] | None:
    """Shows a text in the cell that runs, or `None` outside of a notebook."""
    interactive = sys.modules.get("IPython")
    shell = interactive and interactive.get_ipython()
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)
    return lambda text: handle.update(HTML((text and f"<small>{text}</small>") or ""))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
