"""Threads that compute one program together: who does what, and when all are done."""

import os

from numba import njit, types
from numba.extending import intrinsic

_yield_processor = types.ExternalFunction(
    "SwitchToThread" if os.name == "nt" else "sched_yield", types.int32()
)
_SPINS = 2000  # about 10 microseconds; then another process may have the core


def _pointer_to(context, builder, array_type, array, index):
    view = context.make_array(array_type)(context, builder, array)
    return builder.gep(view.data, [index])


@intrinsic
def atomic_add(typing_context, array, index, value):
    """Adds to an element of an int64 array; returns what it was before."""
    signature = types.int64(array, types.int64, types.int64)

    def codegen(context, builder, signature, arguments):
        array, index, value = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        return builder.atomic_rmw("add", pointer, value, "seq_cst")

    return signature, codegen


@intrinsic
def atomic_load(typing_context, array, index):
    """Reads an element of an int64 array that another thread may change."""
    signature = types.int64(array, types.int64)

    def codegen(context, builder, signature, arguments):
        array, index = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        return builder.load_atomic(pointer, "seq_cst", 8)

    return signature, codegen


@njit(nogil=True)
def wait_for_all(barrier, num_threads):
    """Returns when all threads have called it.

    Args:
        barrier: Array of 2 int64, zeros at first: threads waiting, times it was passed.
        num_threads: Integer. The threads that compute together.
    """
    if num_threads == 1:
        return
    passed = atomic_load(barrier, 1)
    if atomic_add(barrier, 0, 1) == num_threads - 1:
        atomic_add(barrier, 0, -num_threads)
        atomic_add(barrier, 1, 1)
        return
    spins = 0
    while atomic_load(barrier, 1) == passed:
        spins += 1
        if spins > _SPINS:
            _yield_processor()


@njit(nogil=True)
def share(count, thread, num_threads):
    """The range of `count` items that a thread computes: its first, and the next thread's first."""
    return count * thread // num_threads, count * (thread + 1) // num_threads
