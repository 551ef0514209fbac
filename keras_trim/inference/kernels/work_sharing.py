"""Threads that compute one program together: who does what, and when all of it is done.

The caller's thread leads. It goes from one instruction to the next, and its helpers follow as they
can: the work of an instruction is in pieces, which each thread takes until none are left, and the
leader goes on when those that were taken are done. So it never waits for a helper that holds none
because it sleeps or another process has its core.
"""

import os

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from keras_trim.alignment import aligned_zeros
from keras_trim.inference.kernels.compiled import compiled

_yield_processor = types.ExternalFunction(
    "SwitchToThread" if os.name == "nt" else "sched_yield", types.int32()
)
_sleep = types.ExternalFunction("usleep", types.int32(types.uint32))
_CAN_SLEEP = os.name != "nt"  # where the shortest sleep may take 15 ms

# How often to look for what is waited for. Then others may have the core, some 50 microseconds; and
# then it is left to them, as a thread that has work to do may have lost its core to another process
# and moves to one that is idle.
_SPINS, _YIELDS, _SLEEP = 2000, 500, 20  # the last in microseconds
_IDLE_SPINS = 200_000  # some 100 microseconds, in which a helper sleeps not: waking takes as long

# Places in the array of int64 by which threads agree. What different threads write lies on cache
# lines of its own, and two of them apart, as processors load these in pairs. A *turn* is the number
# of an instruction in the order of execution; the turn that is on is in the upper bits of its
# element, the instruction in the lower ones.
_TURN, _IS_RUNNING = 0, 1
_OF_THREADS, _PER_THREAD = 16, 48  # for each thread:
# The pieces taken of its share, in the lower bits, in the turn that is named in the upper ones, or
# none in a later one.
_TAKEN = 0
# The pieces that it has done in all turns, for which the leader looks; it alone writes them.
_DONE = 16
# What it alone has to do with, but for its sleep. The leader knows how many pieces there are in all
# turns, and were before this one.
_IS_ASLEEP, _MY_TURN, _HOLDS, _PIECES, _PIECES_BEFORE = range(32, 37)
_ALONE = _OF_THREADS + _PER_THREAD  # what one thread needs
_TURN_BITS = 32


def _pointer_to(context, builder, array_type, array, index):
    view = context.make_array(array_type)(context, builder, array)
    return builder.gep(view.data, [index])


@intrinsic
def atomic_load(typing_context, array, index):
    """Reads an element of an int64 array that another thread may change."""
    signature = types.int64(array, types.int64)

    def codegen(context, builder, signature, arguments):
        array, index = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        return builder.load_atomic(pointer, "seq_cst", 8)

    return signature, codegen


def _atomic_store(ordering):
    @intrinsic
    def store(typing_context, array, index, value):
        """Writes an element of an int64 array that another thread may read."""
        signature = types.void(array, types.int64, types.int64)

        def codegen(context, builder, signature, arguments):
            array, index, value = arguments
            pointer = _pointer_to(context, builder, signature.args[0], array, index)
            builder.store_atomic(value, pointer, ordering, 8)

        return signature, codegen

    return store


atomic_store = _atomic_store("seq_cst")
# After all that this thread wrote before, but it need not wait until others can see it.
release = _atomic_store("release")


@intrinsic
def atomic_replace(typing_context, array, index, old, new):
    """Writes an element of an int64 array if it is `old`; returns whether it was."""
    signature = types.boolean(array, types.int64, types.int64, types.int64)

    def codegen(context, builder, signature, arguments):
        array, index, old, new = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        result = builder.cmpxchg(pointer, old, new, "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return signature, codegen


def make_control(num_threads):
    """The array by which threads agree."""
    control = aligned_zeros(_OF_THREADS + (_PER_THREAD + _ALONE) * num_threads, np.int64)
    for thread in range(num_threads):
        control[_OF_THREADS + _PER_THREAD * thread + _IS_ASLEEP] = 1  # helpers sleep at first
    return control


@njit(nogil=True)
def control_alone(control, thread, num_threads):
    """The part of the array by which a thread agrees with itself: for work that it does alone."""
    begin = _OF_THREADS + _PER_THREAD * num_threads + _ALONE * thread
    return control[begin : begin + _ALONE]


@njit(nogil=True)
def _of_thread(thread, what):
    return _OF_THREADS + _PER_THREAD * thread + what


@njit(nogil=True)
def _wait(spins):
    if spins > _SPINS:
        if _CAN_SLEEP and spins > _SPINS + _YIELDS:
            _sleep(_SLEEP)
        else:
            _yield_processor()


@compiled
def begin_run(control, num_threads):
    """Lets helpers look for instructions until `end_run`; returns whether any of them sleeps."""
    atomic_store(control, _IS_RUNNING, 1)
    for thread in range(1, num_threads):
        if atomic_load(control, _of_thread(thread, _IS_ASLEEP)):
            return True
    return False


@compiled
def end_run(control):
    """Lets helpers sleep."""
    atomic_store(control, _IS_RUNNING, 0)


@compiled
def is_asleep(control, thread):
    return atomic_load(control, _of_thread(thread, _IS_ASLEEP)) != 0


@compiled
def note_woken(control, thread):
    """Keeps others from waking a helper that has been told, but may take a while to come."""
    atomic_store(control, _of_thread(thread, _IS_ASLEEP), 0)


@njit(nogil=True)
def lead(control, instruction):
    """Begins an instruction. What was taken of the one before has to be done."""
    turn = (control[_TURN] >> _TURN_BITS) + 1
    control[_of_thread(0, _MY_TURN)] = turn << _TURN_BITS
    control[_of_thread(0, _PIECES_BEFORE)] = control[_of_thread(0, _PIECES)]
    release(control, _TURN, turn << _TURN_BITS | instruction)


@njit(nogil=True)
def wait_for_helpers(control, num_threads):
    """Returns when what helpers have taken of an instruction is done; the leader found no more."""
    spins = 0
    while True:
        done = 0
        for thread in range(num_threads):
            done += atomic_load(control, _of_thread(thread, _DONE))
        if done == control[_of_thread(0, _PIECES)]:
            return
        spins += 1
        _wait(spins)


@njit(nogil=True)
def follow(control, thread):
    """Returns the instruction that is next for a helper, or -1 if it should go to sleep."""
    asleep, my_turn = _of_thread(thread, _IS_ASLEEP), _of_thread(thread, _MY_TURN)
    atomic_store(control, asleep, 0)
    spins, idle_spins = 0, 0
    while True:
        turn = atomic_load(control, _TURN)
        instruction = turn & ((1 << _TURN_BITS) - 1)
        if turn - instruction != control[my_turn]:
            control[my_turn] = turn - instruction
            return instruction
        if atomic_load(control, _IS_RUNNING):
            spins += 1
            _wait(spins)
            idle_spins = 0
        else:
            spins = 0
            idle_spins += 1
            if idle_spins > _IDLE_SPINS:
                atomic_store(control, asleep, 1)
                if not atomic_load(control, _IS_RUNNING):
                    return -1
                # A run began, perhaps before its leader could see that this thread sleeps.
                atomic_store(control, asleep, 0)
                idle_spins = 0


@njit(nogil=True)
def share(count, thread, num_threads):
    """The range of `count` items that a thread computes: its first, and the next thread's first."""
    return count * thread // num_threads, count * (thread + 1) // num_threads


@njit(nogil=True)
def take(control, count, size, thread, num_threads):
    """The next items for a thread, out of `count` that all share: up to `size` of them, or fewer if
    there are few for all. Those it was given before are done.

    Each thread goes through a share of its own, which often is in its cache. Then it takes from
    those of the others, which something may have held up: half of the work for each of two threads
    is not half of the time if another process runs.

    All threads have to call it with the same `count` and `size` until it gives them nothing. A
    thread that holds nothing may write nowhere: the leader may be past this instruction already,
    and any memory in use for another.

    Returns:
        `(begin, end)`, both the same if nothing is left.
    """
    holds = _of_thread(thread, _HOLDS)
    if control[holds]:
        control[holds] = 0
        done = _of_thread(thread, _DONE)
        release(control, done, control[done] + 1)
    size = max(min(size, count // num_threads), 1)
    pieces = (count + size - 1) // size
    control[_of_thread(thread, _PIECES)] = control[_of_thread(thread, _PIECES_BEFORE)] + pieces
    turn = control[_of_thread(thread, _MY_TURN)]
    for i in range(num_threads):
        owner = (thread + i) % num_threads
        first, last = share(pieces, owner, num_threads)
        taken = _of_thread(owner, _TAKEN)
        while True:
            before = atomic_load(control, taken)
            # In an earlier turn, none of this one. In a later one, which a thread that is late may
            # find, the difference is far above any number of pieces.
            count_taken = max(before - turn, 0)
            piece = first + count_taken
            if piece >= last:
                break
            if atomic_replace(control, taken, before, turn + count_taken + 1):
                control[holds] = 1
                return piece * size, min((piece + 1) * size, count)
    return count, count
