"""Long-running work reports its progress once, and only where somebody looks."""

import io
import sys
import time
import types

import pytest

from keras_trim import progress as module
from keras_trim.progress import Progress, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(module, "stream", lambda: stream)
    monkeypatch.setattr(module, "DELAY", 0.0)
    monkeypatch.setattr(module, "_PERIOD", 0.001)
    return stream


def wait_for(stream, text):
    end = time.monotonic() + 30
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.002)


def test_how_far_it_is():
    work = Progress("compiling kernels", 40)
    assert work.text() == "compiling kernels: 0 of 40"
    work._began -= 10  # seconds ago
    work.advance(10)
    assert work.text() == "compiling kernels: 10 of 40, 0:30 left"
    work.advance(40)  # more than expected
    assert work.text() == "compiling kernels: 50 of 50"
    assert Progress("checking").text() == "checking (0:00)"


def test_the_innermost_work_is_shown_and_taken_away(terminal):
    with progress("measuring sizes", 3) as work:
        wait_for(terminal, "measuring sizes: 0 of 3")
        with progress("exporting to litert"):
            wait_for(terminal, "exporting to litert (0:00)")
        work.advance()
        wait_for(terminal, "measuring sizes: 1 of 3")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_silence(terminal):
    with progress("planning", verbose=False), progress("compiling"):
        time.sleep(0.05)
    assert terminal.getvalue() == ""
    with pytest.raises(ValueError, match="`verbose` must be 'auto', True or False.*'loud'"):
        progress("x", verbose="loud").__enter__()


def test_what_is_done_soon_says_nothing(terminal, monkeypatch):
    monkeypatch.setattr(module, "DELAY", 60.0)
    with progress("planning"):
        pass
    assert terminal.getvalue() == ""


def test_a_file_gets_a_line_where_that_is_asked_for(terminal, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(module, "stream", lambda: file)
    with progress("planning"):
        time.sleep(0.05)
    assert file.getvalue() == ""
    with progress("planning", 4, verbose=True) as work:
        wait_for(file, "planning ...\n")
        work.advance()
        time.sleep(0.05)
    assert file.getvalue() == "planning ...\n"


def test_an_error_takes_the_line_away(terminal):
    def interrupted():
        with progress("planning"):
            wait_for(terminal, "planning")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_a_notebook_shows_names_as_they_are(monkeypatch):
    shown = []

    class ZMQInteractiveShell:
        pass

    class Handle:
        update = shown.append

    display = types.SimpleNamespace(HTML=str, display=lambda html, display_id: Handle)
    ipython = types.SimpleNamespace(get_ipython=ZMQInteractiveShell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    show = module._shower(False)
    show("pruning <b>: 1 of 2")
    show(None)
    assert shown == ["<small>pruning &lt;b&gt;: 1 of 2</small>", ""]
