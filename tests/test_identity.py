"""Matching saved variables with those of the program: hand-made cases."""

import pytest

from keras_trim.identity import match

KERNEL = (4, 4)


def paths(*names, shape=KERNEL):
    return [(name, shape) for name in names]


@pytest.mark.parametrize(
    ("saved", "present", "expected"),
    [
        # By path, in any order.
        (["a/kernel", "b/kernel"], ["b/kernel", "a/kernel"], [1, 0]),
        # A loaded model lacks the prefix.
        (["model/a/kernel"], ["b/kernel", "a/kernel"], [1]),
        (["a/kernel"], ["model/b/kernel", "model/a/kernel"], [1]),
        # A missing variable is not replaced by the one in its position.
        (["a/kernel", "b/kernel"], ["a/kernel", "c/kernel"], [0, None]),
        # Numbers chosen by Keras, shifted by one: matched in order.
        (["dense/kernel", "dense_1/kernel"], ["dense_1/kernel", "dense_2/kernel"], [0, 1]),
        (["m/dense_8/kernel"], ["n_1/dense_3/kernel"], [0]),
        # Several differ only in numbers, and one is missing: nobody knows which.
        (["dense/kernel", "dense_1/kernel"], ["dense_7/kernel"], [None, None]),
        # The same path twice: matched in order.
        (["a/kernel", "a/kernel"], ["a/kernel", "a/kernel"], [0, 1]),
        # "_kernel" is not the end of "a/my_kernel".
        (["kernel"], ["a/my_kernel"], [None]),
    ],
)
def test_match(saved, present, expected):
    assert match(paths(*saved), paths(*present)) == expected


def test_shapes_must_agree():
    assert match(paths("a/kernel"), paths("a/kernel", shape=(4, 5))) == [None]
