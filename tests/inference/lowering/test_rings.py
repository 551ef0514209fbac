"""Products of which each thread takes the channels that it made: the outputs are those of Keras."""

import keras
import pytest
from helpers import assert_same, assert_survives_a_file, examples, numbers, randomize, sparsities
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keras_trim.inference.kernels.instructions import TASKS
from keras_trim.inference.lowering import layer_tiling as depth_first


@pytest.fixture
def by_channels(monkeypatch, force_kernels):
    """Has all products that threads can share out by channels of the input be so."""
    force_kernels(pointwise="ring")
    monkeypatch.setattr(depth_first, "_band_counts", lambda links, num_threads: [])


def pointwise(size, inputs, outputs, activation=None, padding="valid"):
    x = keras.Input((*size, inputs))
    window = (layers.Conv1D, layers.Conv2D)[len(size) - 1]
    before = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)[len(size) - 1]
    y = before(3, padding="same")(x)
    return keras.Model(x, window(outputs, 1, activation=activation, padding=padding)(y))


def bands(engine, x):
    """How many threads take part in each turn."""
    table = engine._runner([x], skip_zeros=True).program.table
    return table[table[:, 0] == TASKS.code, 1].tolist()


@examples
@given(st.data(), sparsities, st.integers(2, 4), st.sampled_from([None, "relu", "relu6"]))
def test_any_product(by_channels, data, sparsity, num_threads, activation):
    size = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=2))
    outputs = data.draw(st.integers(num_threads, 20))
    inputs = data.draw(st.integers(2 * outputs, 3 * outputs))
    model = randomize(pointwise(size, inputs, outputs, activation), sparsity)
    x = numbers(1, *size, inputs)
    engine = assert_same(model, x, num_threads=num_threads)
    assert bands(engine, x) == [num_threads] * num_threads


def test_infinities_and_nan_spread_as_in_keras(by_channels):
    x = numbers(1, 7, 7, 12)
    x[0, 1, 2, 3], x[0, 4, 4, 11] = float("inf"), float("nan")
    assert_same(randomize(pointwise((7, 7), 12, 5)), x, num_threads=2)


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "num_threads"),
    [
        (2, 12, 4, 2),  # the channels of several images do not lie together
        (1, 7, 4, 2),  # not much less to hand on than to read
        (1, 12, 4, 1),
        (1, 8, 2, 3),  # a row for each thread is the least
        (1, 20, 8, 5),  # they would wait for each other too often
    ],
)
def test_products_that_are_not_shared_out_by_channels(
    by_channels, batch, inputs, outputs, num_threads
):
    x = numbers(batch, 7, 7, inputs)
    engine = assert_same(randomize(pointwise((7, 7), inputs, outputs)), x, num_threads=num_threads)
    assert not bands(engine, x)


def test_a_sum_behind_the_product_is_not_its_own_turn(by_channels):
    x = keras.Input((7, 7, 12))
    y = layers.Conv2D(4, 1)(layers.DepthwiseConv2D(3, padding="same")(x))
    y = layers.Add()([y, layers.Conv2D(4, 3, padding="same")(x)])
    data = numbers(1, 7, 7, 12)
    assert_same(randomize(keras.Model(x, layers.ReLU()(y))), data, num_threads=2)


def test_the_summary_and_a_file_of_it(by_channels, tmp_path):
    x = numbers(1, 7, 7, 12)
    engine = assert_same(randomize(pointwise((7, 7), 12, 5)), x, num_threads=2)
    row = engine.summary(x).rows[-1]
    assert row.seconds > 0
    assert "each thread its channels" in row.kernel
    assert_survives_a_file(engine, x, tmp_path)
