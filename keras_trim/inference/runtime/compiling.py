"""Shows progress while Numba compiles kernels, which takes about a minute once per machine."""

import contextlib
import sys
import threading

from numba.core import event
from numba.core.dispatcher import Dispatcher

from keras_trim.progress import progress

_EVENT = "numba:compile"


@contextlib.contextmanager
def watched(verbose="auto"):
    """Shows progress of slow planning and compiling in its body; see `progress`.

    Args:
        verbose: As for `Engine`.
    """
    with progress("preparing the engine", verbose=verbose), contextlib.ExitStack() as stack:
        listener = _Listener()
        event.register(_EVENT, listener)
        stack.callback(event.unregister, _EVENT, listener)
        yield


class _Listener(event.Listener):
    """Counts a function that Python calls and the functions compiled for it, as they finish.

    Numba reports what any thread compiles. This counts only what its own thread does.
    """

    def __init__(self):
        self._thread = threading.get_ident()
        self._depth, self._stack, self._work = 0, None, None

    def on_start(self, event):
        if threading.get_ident() != self._thread:
            return
        if self._depth == 0:
            self._stack = contextlib.ExitStack()
            what = "compiling kernels, once for this machine"
            self._work = self._stack.enter_context(progress(what, _count_functions()))
        self._depth += 1

    def on_end(self, event):
        if threading.get_ident() != self._thread:
            return
        self._depth -= 1
        self._work.advance()
        if self._depth == 0:
            self._stack.close()


def _count_functions():
    """How many functions of the engine are not compiled yet; most compile once."""
    return len(
        {
            id(value)
            for name, module in list(sys.modules.items())
            if name.startswith("keras_trim.inference")
            for value in vars(module).values()
            if isinstance(value, Dispatcher) and not value.overloads
        }
    )
