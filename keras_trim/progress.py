"""Shows one line about long-running work and its progress, in a terminal or a notebook.

Work that takes less than two seconds shows nothing. Silenced work also silences all work inside it.
Only one line is shown at a time, that of the innermost work. If output goes to a file, nothing is
shown unless `verbose` asks for it.
"""

import contextlib
import html
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

DELAY = 2.0  # seconds of silence
_PERIOD = 0.25  # seconds between updates
_LEAST_SHARE = 0.02  # the share of work after which the remaining time is estimated


def stderr() -> IO[str]:
    return sys.stderr


# Where lines are written. The command line points this past the output that it silences.
stream: Callable[[], IO[str]] = stderr


class Progress:
    """The progress of some work.

    Args:
        description: String. The current work, such as `"compiling kernels"`.
        total: Integer, or `None` if unknown.
    """

    def __init__(self, description: str, total: int | None = None) -> None:
        self.description, self.total, self.done = description, total, 0
        self._began = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Records that some of the work is done."""
        self.done += count
        if self.total is not None:
            self.total = max(self.total, self.done)

    def text(self) -> str:
        """Returns text such as `"compiling kernels: 12 of 40, 0:25 left"`."""
        passed = time.monotonic() - self._began
        if not self.total:
            return f"{self.description} ({_minutes(passed)})"
        told = f"{self.description}: {self.done} of {self.total}"
        if self.done < _LEAST_SHARE * self.total or self.done == self.total:
            return told
        return f"{told}, {_minutes(passed / self.done * (self.total - self.done))} left"


class _Line:
    """The displayed line, and the thread that updates it."""

    def __init__(self) -> None:
        self.works: list[Progress] = []  # the innermost is last
        self.silenced = 0  # the number of enclosing works that are silent
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
            with contextlib.suppress(IndexError):  # the work has just ended
                show(self.works[-1].text())
        show(None)


_line = _Line()
_lock = threading.RLock()


@contextlib.contextmanager
def progress(
    description: str, total: int | None = None, verbose: str | bool | int = "auto"
) -> Iterator[Progress]:
    """Shows the progress of some work, from two seconds after its start until the block ends.

    Args:
        description: String. The current work, such as `"compiling kernels"`.
        total: Integer. Number of steps, or `None` if unknown.
        verbose: `"auto"` (in a terminal or a notebook), `True` (in a file, too) or `False`.

    Yields:
        `Progress`. Call its `advance` after each step.
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
    """Returns a function that shows a text (`None` hides it), or `None` if nobody would see it."""
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
    with contextlib.suppress(OSError, ValueError):  # the stream was closed
        out.write(text)
        out.flush()


def _in_notebook() -> Callable[[str | None], None] | None:
    """Returns a function that shows a text in the running cell, or `None` outside a notebook."""
    interactive = sys.modules.get("IPython")
    shell = interactive and interactive.get_ipython()
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)
    return lambda text: handle.update(HTML(f"<small>{html.escape(text)}</small>" if text else ""))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
