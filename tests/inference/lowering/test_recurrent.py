"""Recurrent layers, wrappers over time and masks, against Keras itself."""

import keras
import numpy as np
import pytest
from helpers import assert_same, examples, kinds, numbers, of_layer, randomize
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keras_trim.inference.engine import Engine

CELLS = {
    "lstm": (layers.LSTM, {}),
    "gru": (layers.GRU, {}),
    "gru_before": (layers.GRU, {"reset_after": False}),
    "simple": (layers.SimpleRNN, {}),
}
MERGES = ["concat", "sum", "mul", "ave", None]


def check(model, *inputs, num_threads=1):
    """Compares the engine with the model; returns the names of the engine's operations."""
    inputs = inputs[0] if len(inputs) == 1 else list(inputs)
    return kinds(assert_same(model, inputs, num_threads=num_threads, native=False))


@examples
@given(
    cell=st.sampled_from(sorted(CELLS)),
    units=st.integers(1, 40),
    width=st.integers(1, 40),
    steps=st.integers(1, 6),
    batch=st.integers(1, 33),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    num_threads=st.integers(1, 3),
    flags=st.fixed_dictionaries(
        {
            name: st.booleans()
            for name in ("return_sequences", "return_state", "go_backwards", "use_bias")
        }
    ),
    activation=st.sampled_from(["tanh", "relu", "linear"]),
)
def test_layers(cell, units, width, steps, batch, sparsity, num_threads, flags, activation):
    layer, settings_of_cell = CELLS[cell]
    layer = layer(units, activation=activation, **settings_of_cell, **flags)
    model = of_layer(layer, (steps, width), sparsity)
    assert check(model, numbers(batch, steps, width), num_threads=num_threads) == ["Recurrent"]


@pytest.mark.parametrize("name", ["sigmoid", "hard_sigmoid", "softsign", "softplus", "elu"])
def test_recurrent_activations(name):
    for batch in (1, 5):
        layer = layers.LSTM(6, activation=name, recurrent_activation=name)
        assert check(of_layer(layer, (4, 3)), numbers(batch, 4, 3)) == ["Recurrent"]


def test_an_unknown_activation_runs_in_keras():
    layer = layers.GRU(6, activation=lambda x: keras.ops.sin(x))
    assert check(of_layer(layer, (4, 3)), numbers(2, 4, 3)) == ["KerasCall"]


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_initial_state(cell, batch):
    layer, settings_of_cell = CELLS[cell]
    x = keras.Input((4, 3))
    states = [keras.Input((6,)) for _ in range(2 if cell == "lstm" else 1)]
    layer = layer(6, return_state=True, **settings_of_cell)
    model = randomize(keras.Model([x, *states], layer(x, initial_state=states)), 0.5)
    given_states = [numbers(batch, 1, 6)[:, 0] + i for i in range(len(states))]
    assert check(model, numbers(batch, 4, 3), *given_states) == ["Recurrent"]


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("merge_mode", MERGES)
def test_bidirectional(merge_mode, return_sequences, batch):
    for inner in (layers.LSTM, layers.GRU):
        layer = layers.Bidirectional(
            inner(5, return_sequences=return_sequences), merge_mode=merge_mode
        )
        names = check(of_layer(layer, (4, 3)), numbers(batch, 4, 3))
        assert names[:2] == ["Recurrent", "Recurrent"]
        assert "KerasCall" not in names


def test_bidirectional_with_states_and_layers_that_differ():
    x, *states = (keras.Input((4, 3)), *(keras.Input((5,)) for _ in range(4)))
    layer = layers.Bidirectional(
        layers.LSTM(5, return_sequences=True, return_state=True),
        backward_layer=layers.LSTM(
            5, activation="relu", go_backwards=True, return_sequences=True, return_state=True
        ),
    )
    model = randomize(keras.Model([x, *states], layer(x, initial_state=states)), 0.5)
    given_states = [numbers(3, 1, 5)[:, 0] + i for i in range(4)]
    assert "KerasCall" not in check(model, numbers(3, 4, 3), *given_states)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(4, activation="relu"), (3,)),
        (layers.LayerNormalization(), (3,)),
        (layers.Conv2D(4, 3, activation="relu"), (6, 5, 3)),
        (layers.LSTM(4), (5, 3)),
    ],
)
def test_time_distributed(layer, shape):
    x = keras.Input((4, *shape))
    model = randomize(
        keras.Model(x, layers.TimeDistributed(layer.from_config(layer.get_config()))(x)), 0.5
    )
    data = numbers(2, 4, int(np.prod(shape))).reshape(2, 4, *shape)
    assert "KerasCall" not in check(model, data)


def test_a_free_number_of_steps():
    x = keras.Input((None, 3))
    y = layers.Bidirectional(layers.GRU(5, return_sequences=True))(x)
    y = layers.TimeDistributed(layers.LayerNormalization())(y)
    model = randomize(keras.Model(x, layers.LSTM(4)(y)), 0.5)
    engine = Engine(model)
    for steps in (3, 7):
        data = numbers(2, steps, 3)
        # Not `predict`: on TensorFlow it confuses numbers of steps in TimeDistributed (Keras 3.15).
        expected = keras.ops.convert_to_numpy(model(data))
        np.testing.assert_allclose(engine(data), expected, rtol=1e-4, atol=1e-5)


def test_stacked_cells():
    cells = [layers.LSTMCell(4), layers.GRUCell(6), layers.SimpleRNNCell(3)]
    layer = layers.RNN(cells, return_sequences=True, go_backwards=True)
    assert check(of_layer(layer, (4, 3)), numbers(5, 4, 3)) == ["Recurrent"] * 3


def test_stateful_layers_keep_their_state():
    def make():
        x = keras.Input(batch_shape=(2, 4, 3))
        return randomize(keras.Model(x, layers.LSTM(4, stateful=True)(x)), 0.5)

    model, engine = make(), Engine(make())
    for _ in range(2):
        data = numbers(2, 4, 3)
        np.testing.assert_allclose(
            engine(data), keras.ops.convert_to_numpy(model(data)), rtol=1e-4, atol=1e-5
        )


def tokens(batch=6, steps=7):
    rng = np.random.default_rng(2)
    x = rng.integers(1, 9, (batch, steps))
    x[np.arange(steps) >= rng.integers(0, steps + 1, (batch, 1))] = 0
    x[0] = 0  # nothing but padding
    x[1, 2] = 0  # a gap
    return x.astype("int32")


MASKED = {
    "lstm": lambda x: layers.LSTM(5)(x),
    "sequences": lambda x: layers.LSTM(5)(layers.GRU(4, return_sequences=True)(x)),
    "backwards": lambda x: layers.GRU(5, go_backwards=True, return_sequences=True)(x),
    "bidirectional": lambda x: layers.LSTM(4)(
        layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    ),
    "bidirectional last": lambda x: layers.Bidirectional(layers.SimpleRNN(5))(x),
    "passed on": lambda x: layers.LSTM(5)(layers.Dropout(0.5)(layers.Dense(4)(x))),
    "time distributed": lambda x: layers.LSTM(5)(layers.TimeDistributed(layers.Dense(4))(x)),
    "nested": lambda x: keras.Sequential([layers.Dense(3), layers.LSTM(5)])(x),
}


# Keras warns where a layer does not know of masks, as a nested model does not.
ignores_mask = pytest.mark.filterwarnings("ignore:.*does not support masking")


@ignores_mask
@pytest.mark.parametrize("batch", [2, 6])
@pytest.mark.parametrize("name", sorted(MASKED))
def test_masks(name, batch):
    x = keras.Input((7,), dtype="int32")
    y = layers.Embedding(9, 4, mask_zero=True)(x)
    model = randomize(keras.Model(x, MASKED[name](y)), 0.3)
    used = check(model, tokens()[:batch])
    assert "KerasCall" not in used or name == "nested"  # Keras decides what a model does with masks


@pytest.mark.parametrize("batch", [2, 6])
def test_masking_layer(batch):
    x = keras.Input((7, 3))
    model = randomize(keras.Model(x, layers.LSTM(5)(layers.Masking(0.5)(x))), 0.3)
    data = numbers(batch, 7, 3)
    data[tokens()[:batch] == 0] = 0.5
    data[1, 3, 0] = np.nan  # is not the value that is masked
    assert "Recurrent" in check(model, data)


class Doubled(layers.Layer):
    """Has no mask argument, hands the mask to a layer of its own, and passes it on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.GRU(4, return_sequences=True)
        self.supports_masking = True

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return 2 * self.inner(x)


class OwnEmbedding(layers.Layer):
    """Makes a mask, and Keras alone knows."""

    def build(self, shape):
        self.table = self.add_weight(shape=(9, 4))

    def call(self, x):
        return keras.ops.take(self.table, x, axis=0)

    def compute_mask(self, x, previous=None):
        return x != 3


@ignores_mask
@pytest.mark.parametrize(
    "rest",
    [
        lambda x: layers.GlobalAveragePooling1D()(x),
        lambda x: layers.LSTM(5)(layers.Add()([x, layers.Dense(4)(x)])),
        lambda x: layers.LSTM(5)(layers.Concatenate()([x, layers.Dense(2)(x)])),
        lambda x: layers.LSTM(5)(Doubled()(x)),
        lambda x: layers.LSTM(5, activation=lambda z: keras.ops.sin(z))(x),
        lambda x: layers.GlobalMaxPooling1D()(
            layers.MultiHeadAttention(2, 3)(x, x)
        ),
    ],
)  # fmt: skip
def test_masks_of_layers_that_run_in_keras(rest):
    x = keras.Input((7,), dtype="int32")
    y = layers.Embedding(9, 4, mask_zero=True)(x)
    data = tokens()
    data[0, 0] = 1  # Keras's mean over no step at all is NaN
    check(randomize(keras.Model(x, rest(y)), 0.3), data)


def test_a_mask_that_a_layer_of_the_user_makes():
    x = keras.Input((7,), dtype="int32")
    model = randomize(keras.Model(x, layers.LSTM(5)(OwnEmbedding()(x))), 0.3)
    names = check(model, tokens())
    assert (names[0], names[-1]) == ("KerasCall", "Recurrent")


def test_an_explicit_mask_with_a_state():
    x, mask = keras.Input((7, 3)), keras.Input((7,), dtype="bool")
    state = keras.Input((5,))
    y = layers.GRU(5, return_sequences=True)(x, initial_state=[state], mask=mask)
    model = randomize(keras.Model([x, mask, state], y), 0.3)
    check(model, numbers(6, 7, 3), tokens() != 0, numbers(6, 1, 5)[:, 0])


@examples
@given(
    inputs=st.integers(1, 200),
    outputs=st.integers(1, 300),
    batch=st.integers(1, 4),
    sparsity=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    num_threads=st.integers(1, 3),
    activation=st.sampled_from(["relu", "linear"]),
)
def test_dense_on_few_rows(inputs, outputs, batch, sparsity, num_threads, activation):
    x = keras.Input((inputs,))
    model = keras.Model(x, layers.Dense(outputs, activation=activation)(x))
    data = numbers(1, batch, inputs)[0]
    assert check(randomize(model, sparsity), data, num_threads=num_threads) == ["Dense"]


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_dense_passes_nan_on(sparsity):
    x = keras.Input((20,))
    model = randomize(keras.Model(x, layers.Dense(40, activation="relu")(x)), sparsity)
    model.layers[-1].bias.assign(np.where(np.arange(40) == 7, np.nan, 1.0))
    y = Engine(model)(np.ones((1, 20), "float32"))
    assert np.flatnonzero(np.isnan(y)).tolist() == [7]


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_steps_and_samples_whose_planes_would_crowd_a_cache(layer):
    model = of_layer(layer(8, return_sequences=True), (16, 4), 0.8)
    assert_same(model, numbers(16, 16, 4))
