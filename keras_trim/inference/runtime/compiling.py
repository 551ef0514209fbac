"""Says how far Numba is, while it compiles kernels: about a minute, once per machine."""

import contextlib
import sys

from numba.core import event
from numba.core.dispatcher import Dispatcher

from keras_trim.progress import progress

_EVENT = "numba:compile"


@contextlib.contextmanager
def watched(verbose="auto"):
    """Within it, what is planned and compiled is shown if it takes long; see `progress`.

    Args:
        verbose: As of `Engine`.
    """
    with progress("preparing the engine", verbose=verbose), contextlib.ExitStack() as stack:
        listener = _Listener()
        event.register(_EVENT, listener)
        stack.callback(event.unregister, _EVENT, listener)
        yield


class _Listener(event.Listener):
    """Counts the functions that are compiled within one that Python calls, and itself."""

    def __init__(self):
        self._depth, self._stack, self._work = 0, None, None

    def on_start(self, event):
        if self._depth == 0:
            self._stack = contextlib.ExitStack()
            what = "compiling kernels, once for this machine"
            self._work = self._stack.enter_context(progress(what, _count_functions()))
        self._depth += 1

    def on_end(self, event):
        self._depth -= 1
        self._work.advance()
        if self._depth == 0:
            self._stack.close()


def _count_functions():
    """Functions of the engine that Numba compiles: most of them once."""
    return len(
        {
            id(value)
            for name, module in list(sys.modules.items())
            if name.startswith("keras_trim.inference")
            for value in vars(module).values()
            if isinstance(value, Dispatcher) and not value.overloads
        }
    )
