"""Shares the work of one program among threads: who computes what, and when all of it is done.

The caller's thread leads: it steps through the instructions, and helpers follow as they can. The
work of an instruction is split into pieces, and threads take pieces until none are left. The leader
moves on once all taken pieces are done. So it never waits for a helper that holds no piece because
it sleeps or has lost its core to another process.
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

# A waiting thread spins, then yields its core (for some 50 us), then sleeps. Sleep frees the core
# for a thread that has work to do but lost its own core to another process.
_SPINS, _YIELDS, _SLEEP = 2000, 500, 20  # the last in microseconds
_IDLE_SPINS = 200_000  # an idle helper spins for some 100 us before it sleeps: waking takes as long

# Places in the int64 array through which threads synchronize. Elements that different threads write
# are at least two cache lines apart, because processors load lines in pairs. A *turn* is the number
# of an instruction in the order of execution. `_TURN` holds the current turn in its upper bits, the
# instruction in its lower bits.
_TURN, _IS_RUNNING = 0, 1
_OF_THREADS, _PER_THREAD = 16, 48  # for each thread:
# The number of pieces taken of its share, in the lower bits, and the turn that this number is for,
# in the upper bits. In a later turn none are taken yet.
_TAKEN = 0
# The number of pieces it has done in all turns. Only the thread writes it; the leader reads it.
_DONE = 16
# Private to the thread, except `_IS_ASLEEP`. The leader uses the last two: the number of pieces in
# all turns so far, and before the current turn.
_IS_ASLEEP, _MY_TURN, _HOLDS, _PIECES, _PIECES_BEFORE = range(32, 37)
_ALONE = _OF_THREADS + _PER_THREAD  # size of the array for a single thread
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
# Ordered after this thread's earlier writes, but does not wait until other threads can see it.
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
    """Creates the array through which threads synchronize."""
    control = aligned_zeros(_OF_THREADS + (_PER_THREAD + _ALONE) * num_threads, np.int64)
    for thread in range(num_threads):
        control[_OF_THREADS + _PER_THREAD * thread + _IS_ASLEEP] = 1  # helpers start asleep
    return control


@njit(nogil=True)
def control_alone(control, thread, num_threads):
    """Returns a thread's own control array, for work that it does alone."""
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
    """Has helpers poll for instructions until `end_run`; returns whether any of them sleeps."""
    atomic_store(control, _IS_RUNNING, 1)
    for thread in range(1, num_threads):
        if atomic_load(control, _of_thread(thread, _IS_ASLEEP)):
            return True
    return False


@compiled
def end_run(control):
    """Lets helpers go to sleep."""
    atomic_store(control, _IS_RUNNING, 0)


@compiled
def is_asleep(control, thread):
    return atomic_load(control, _of_thread(thread, _IS_ASLEEP)) != 0


@compiled
def note_woken(control, thread):
    """Marks a signaled helper as awake: it may respond late, and must not be woken twice."""
    atomic_store(control, _of_thread(thread, _IS_ASLEEP), 0)


@njit(nogil=True)
def lead(control, instruction):
    """Begins an instruction. All pieces taken of the previous one must be done."""
    turn = (control[_TURN] >> _TURN_BITS) + 1
    control[_of_thread(0, _MY_TURN)] = turn << _TURN_BITS
    control[_of_thread(0, _PIECES_BEFORE)] = control[_of_thread(0, _PIECES)]
    release(control, _TURN, turn << _TURN_BITS | instruction)


@njit(nogil=True)
def wait_for_helpers(control, num_threads):
    """Waits for the pieces that helpers have taken, after the leader has found no more to take."""
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
    """Returns a helper's next instruction, or -1 if the helper should go to sleep."""
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
                # A run has begun, and its leader may not have seen that this thread was asleep.
                atomic_store(control, asleep, 0)
                idle_spins = 0


@njit(nogil=True)
def share(count, thread, num_threads):
    """Returns the range `(begin, end)` of `count` items that a thread computes."""
    return count * thread // num_threads, count * (thread + 1) // num_threads


@njit(nogil=True)
def take(control, count, size, thread, num_threads):
    """Marks a thread's previous range of items as done, and returns its next one.

    The range has up to `size` of the `count` items that all threads share, fewer if there are few
    for all.

    Each thread goes through its own share first, which often is in its cache. Then it takes from
    the shares of others, which may be delayed: half of the work for each of two threads is not half
    of the time if another process runs.

    All threads must call this with the same `count` and `size` until it returns an empty range. A
    thread that holds no range must not write anything: the leader may be past this instruction, and
    all memory may be in use for another one.

    Returns:
        `(begin, end)`, equal if nothing is left.
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
            # An earlier turn: none of this turn are taken. A later turn, which a late thread may
            # find: the difference is far above any number of pieces.
            count_taken = max(before - turn, 0)
            piece = first + count_taken
            if piece >= last:
                break
            if atomic_replace(control, taken, before, turn + count_taken + 1):
                control[holds] = 1
                return piece * size, min((piece + 1) * size, count)
    return count, count
