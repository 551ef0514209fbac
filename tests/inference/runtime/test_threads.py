"""How threads share the items of an instruction."""

import threading

import keras
import numpy as np
import pytest
from helpers import examples, numbers, randomize
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from numba import njit

from keras_trim.alignment import aligned_zeros
from keras_trim.inference import Engine
from keras_trim.inference.kernels import work_sharing as threads
from keras_trim.inference.kernels.work_sharing import (
    begin_run,
    end_run,
    follow,
    lead,
    make_control,
    take,
    wait_for_helpers,
)
from keras_trim.inference.lowering import geometry, sliding_window
from keras_trim.inference.runtime.interpreter import run


@njit(nogil=True)
def take_all(control, count, size, thread, num_threads, seen):
    """Counts each item that the thread is given, in `seen`; returns the largest number of them."""
    largest = 0
    begin, end = take(control, count, size, thread, num_threads)
    while begin < end:
        seen[begin:end] += 1
        largest = max(largest, end - begin)
        begin, end = take(control, count, size, thread, num_threads)
    return largest


@njit(nogil=True)
def lead_all(control, count, size, num_threads, seen):
    """Leads an instruction for each row of `seen`."""
    for instruction in range(len(seen)):
        lead(control, instruction)
        take_all(control, count, size, 0, num_threads, seen[instruction])
        wait_for_helpers(control, num_threads)


@njit(nogil=True)
def follow_all(control, count, size, thread, num_threads, seen):
    while True:
        instruction = follow(control, thread)
        if instruction < 0:
            return
        take_all(control, count, size, thread, num_threads, seen[instruction])


@given(
    st.integers(0, 100), st.integers(1, 9), st.integers(1, 4),
    st.sampled_from([0, (1 << 31) - 25, -25]),
)  # fmt: skip
@examples
def test_every_item_is_taken_once(count, size, num_threads, turn):
    """Also where the number of the turn overflows, which takes some days."""
    control = make_control(num_threads)
    control[threads._TURN] = turn << threads._TURN_BITS
    for thread in range(num_threads):
        for what in (threads._TAKEN, threads._MY_TURN):
            control[threads._of_thread(thread, what)] = turn << threads._TURN_BITS
    seen = np.zeros((num_threads, 50, count), np.int64)
    begin_run(control, num_threads)
    helpers = [
        threading.Thread(target=follow_all, args=(control, count, size, i, num_threads, seen[i]))
        for i in range(1, num_threads)
    ]
    for helper in helpers:
        helper.start()
    lead_all(control, count, size, num_threads, seen[0])
    times = seen.sum(0)  # when all of it is done, not only taken
    end_run(control)
    for helper in helpers:
        helper.join()
    np.testing.assert_array_equal(times, 1)


def test_a_thread_that_is_done_takes_what_others_have_not_begun():
    control = make_control(3)
    lead(control, 7)
    assert follow(control, 2) == 7
    assert take(control, 30, 4, 2, 3) == (20, 24)  # the third thread begins with its own
    seen = np.zeros(30, np.int64)
    assert take_all(control, 30, 4, 0, 3, seen) == 4
    np.testing.assert_array_equal(np.flatnonzero(seen == 0), range(20, 24))


def test_nobody_waits_for_a_helper_that_holds_nothing():
    control = make_control(3)
    seen = np.zeros((2, 30), np.int64)
    lead_all(control, 30, 4, 3, seen[:1])  # returns, though no helper came
    lead(control, 1)
    late = np.zeros(30, np.int64)
    # A helper that is late, in the turn of an instruction that is done, gets nothing.
    assert follow(control, 1) == 1
    lead_all(control, 30, 4, 3, seen[1:])
    lead(control, 2)
    assert take_all(control, 30, 4, 1, 3, late) == 0
    np.testing.assert_array_equal(seen, 1)


@pytest.mark.parametrize("has_masks", [True, False])
def test_a_helper_that_comes_late_writes_nothing(has_masks, monkeypatch):
    """The leader may be at another instruction, which uses any memory that this one used."""
    if not has_masks:  # however fast kernels with them are
        monkeypatch.setattr(sliding_window, "MOST_MASKS", 0)
        monkeypatch.setattr(geometry, "MOST_MASKS", 0)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D(2, 1, padding="same")(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Conv2D(8, 3, padding="same")(layers.DepthwiseConv2D(5, padding="same")(x))
    engine = Engine(randomize(keras.Model(inputs, layers.Flatten()(x)), 0.5), num_threads=2)
    program = engine._runner([numbers(1, 12, 12, 3)], skip_zeros=True).program
    arena, control = aligned_zeros(program.arena_size), make_control(2)
    arguments = (program.table, program.factors, arena, program.constants, program.index,
                 program.short_index, control)  # fmt: skip
    for begin, end in program.steps:
        for instruction in range(begin, end):
            run(*arguments, 0, 2, instruction, instruction + 1)
            arena[:] = 7
            run(*arguments, 1, 2, 0, 0)  # finds the instruction, of which nothing is left
            assert (arena == 7).all(), program.table[instruction, 0]
