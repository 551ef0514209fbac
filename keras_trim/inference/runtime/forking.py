"""Resets locks in forked processes.

A fork copies only the calling thread, so locks that other threads held stay locked in the child.
"""

import os
import threading
import weakref

from numba.core.compiler_lock import global_compiler_lock

_planners = weakref.WeakSet()


def protect(planner):
    """Registers a planner to get a new lock after a fork."""
    _planners.add(planner)


class _HeldForever:
    """Replaces the compiler's lock if another thread held it during the fork."""

    def acquire(self, *args, **kwargs):
        raise RuntimeError(
            "This process was forked while another thread compiled or loaded kernels, so it cannot "
            "do so any more. Run the engine once before you fork, or start processes by the method "
            "'spawn' of `multiprocessing`."
        )

    def release(self):
        pass

    def _is_owned(self):
        return False


def _after_fork():
    for planner in list(_planners):
        planner.lock = threading.Lock()
    lock = global_compiler_lock._lock
    if lock.acquire(blocking=False):
        lock.release()
    else:
        global_compiler_lock._lock = _HeldForever()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
