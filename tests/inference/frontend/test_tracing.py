"""Python in the `call` of a layer: what a trace of it cannot hold runs in Keras."""

import keras
import pytest
from helpers import assert_same, numbers
from keras import layers, ops


class Calling(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def model_of(function, shape=(3, 4)):
    x = keras.Input(shape)
    return keras.Model(x, Calling(function)(x))


def cumulated(x):
    def step(carry, part):
        return carry + part * ops.mean(x), carry

    return ops.scan(step, x[:, 0], ops.transpose(x, (1, 0, 2)))[0]


CLOSURES = {
    "map": lambda x: ops.map(lambda part: part * ops.mean(x), x),
    "scan": cumulated,
    "vectorized map": lambda x: ops.vectorized_map(lambda part: part * ops.sum(x), x),
    "associative scan": lambda x: ops.associative_scan(lambda a, b: a + b * ops.mean(x), x, axis=1),
    "for": lambda x: ops.fori_loop(0, 3, lambda i, y: y * 0.5 + x, x),
    "while": lambda x: ops.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, y + x), (ops.zeros((), "int32"), x)
    )[1],
    "condition": lambda x: ops.cond(ops.sum(x) > 0, lambda: x * 2, lambda: x - 1),
}


@pytest.mark.parametrize("name", CLOSURES)
def test_operations_that_call_functions(name):
    assert_same(model_of(CLOSURES[name]), numbers(2, 3, 4), native=False)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
def test_norms(axis):
    assert_same(model_of(lambda x: ops.norm(x, axis=axis)), numbers(2, 3, 4), native=False)
