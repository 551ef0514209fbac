"""How threads share the items of an instruction."""

import threading

import numpy as np
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from keras_trim.inference.kernels.threads import make_control, take, wait_for_all


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
def take_all_and_meet(control, count, size, thread, num_threads, seen):
    take_all(control, count, size, thread, num_threads, seen)
    wait_for_all(control, num_threads)


@given(st.integers(0, 100), st.integers(1, 9), st.integers(1, 4))
@examples
def test_every_item_is_taken_once(count, size, num_threads):
    control = make_control(num_threads)
    for _ in range(2):  # the second time finds the counts set back
        seen = np.zeros((num_threads, count), np.int64)
        threads = [
            threading.Thread(
                target=take_all_and_meet, args=(control, count, size, i, num_threads, seen[i])
            )
            for i in range(num_threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(seen.sum(0), 1)


def test_a_thread_that_is_done_takes_what_others_have_not_begun():
    control = make_control(3)
    assert take(control, 30, 4, 2, 3) == (20, 24)  # the third thread begins with its own
    seen = np.zeros(30, np.int64)
    assert take_all(control, 30, 4, 0, 3, seen) == 4
    np.testing.assert_array_equal(np.flatnonzero(seen == 0), range(20, 24))
