"""Threads that compute one program together: who does what, and when all are done."""

import os

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from keras_trim.alignment import aligned_zeros

_yield_processor = types.ExternalFunction(
    "SwitchToThread" if os.name == "nt" else "sched_yield", types.int32()
)
_SPINS = 2000  # a few microseconds; then another process may have the core
_IDLE_SPINS = 200_000  # some 100 microseconds, in which a helper sleeps not: waking takes as long

# Places in the array of int64 by which threads agree. What is waited for in different ways lies on
# cache lines of its own.
_WAITING, _PASSED, _ABORTED = 0, 1, 2  # threads at the barrier, times it was passed, an end
_POSTED, _BEGIN, _END = 8, 9, 10  # pieces of work posted so far, and the last one's instructions
_OF_THREADS, _PER_THREAD = 16, 8  # the pieces each has begun, whether it sleeps, what is taken
_ASLEEP, _TAKEN = 1, 2


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


def make_control(num_threads):
    """The array by which threads agree."""
    control = aligned_zeros(_OF_THREADS + _PER_THREAD * num_threads, np.int64)
    control[_OF_THREADS + _ASLEEP :: _PER_THREAD] = 1  # helpers sleep at first
    return control


@njit(nogil=True)
def _of_thread(thread, what):
    return _OF_THREADS + _PER_THREAD * thread + what


@njit(nogil=True)
def wait_for_all(control, num_threads):
    """Returns True when all threads have called it, or False if they are to end."""
    if num_threads == 1:
        control[_of_thread(0, _TAKEN)] = 0
        return True
    passed = atomic_load(control, _PASSED)
    if atomic_add(control, _WAITING, 1) == num_threads - 1:
        for other in range(num_threads):
            control[_of_thread(other, _TAKEN)] = 0
        atomic_add(control, _WAITING, -num_threads)
        atomic_add(control, _PASSED, 1)
        return True
    spins = 0
    while atomic_load(control, _PASSED) == passed:
        spins += 1
        if spins > _SPINS:
            if atomic_load(control, _ABORTED):
                return False
            _yield_processor()
    return True


@njit(nogil=True, cache=True)
def post(control, begin, end):
    """Gives the helpers instructions to run. Those that sleep have to be woken by the caller."""
    control[_BEGIN], control[_END] = begin, end
    atomic_add(control, _POSTED, 1)


@njit(nogil=True, cache=True)
def abort(control):
    """Ends the helpers, wherever they wait; what they compute is of no use."""
    atomic_add(control, _ABORTED, 1)


@njit(nogil=True, cache=True)
def is_asleep(control, thread):
    return atomic_load(control, _of_thread(thread, _ASLEEP)) != 0


@njit(nogil=True)
def wait_for_work(control, thread):
    """What a helper does between two pieces of work.

    Returns:
        `(begin, end)` of the instructions to run, or -1, -1 if the thread should go to sleep.
    """
    begun, asleep = _of_thread(thread, 0), _of_thread(thread, _ASLEEP)
    atomic_add(control, asleep, -atomic_load(control, asleep))
    spins = 0
    while atomic_load(control, _POSTED) == control[begun]:
        spins += 1
        if spins == _IDLE_SPINS:
            atomic_add(control, asleep, 1)
        elif spins > _IDLE_SPINS:  # nothing was posted before the poster could see it sleep
            return -1, -1
    if atomic_load(control, _ABORTED):
        return -1, -1
    atomic_add(control, asleep, -atomic_load(control, asleep))
    control[begun] += 1
    return control[_BEGIN], control[_END]


@njit(nogil=True)
def share(count, thread, num_threads):
    """The range of `count` items that a thread computes: its first, and the next thread's first."""
    return count * thread // num_threads, count * (thread + 1) // num_threads


@njit(nogil=True)
def take(control, count, size, thread, num_threads):
    """The next items for a thread, out of `count` that all share: up to `size` of them, or fewer if
    there are few for all.

    Each thread goes through a share of its own, which often is in its cache. Then it takes from
    those of the others, which something may have held up: half of the work for each of two threads
    is not half of the time if another process runs.

    Returns:
        `(begin, end)`, both the same if nothing is left.
    """
    size = max(min(size, count // num_threads), 1)
    pieces = (count + size - 1) // size
    for i in range(num_threads):
        owner = (thread + i) % num_threads
        first, last = share(pieces, owner, num_threads)
        taken = _of_thread(owner, _TAKEN)
        if first + atomic_load(control, taken) < last:
            piece = first + atomic_add(control, taken, 1)
            if piece < last:
                return piece * size, min((piece + 1) * size, count)
    return count, count
