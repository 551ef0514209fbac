"""What a call of Keras decides besides weights: training, states, seeds, inputs that are not there.

The reference is `model.predict`, from the same state.
"""

import keras
import numpy as np
import pytest
from helpers import assert_same, numbers, randomize
from keras import layers, ops

from keras_trim.inference import Engine


def variables(model):
    """All of them: Keras leaves out the states of recurrent layers."""
    rnns = [layer for layer in model._flatten_layers() if isinstance(layer, layers.RNN)]
    states = [x for x in keras.tree.flatten([rnn.states for rnn in rnns]) if x is not None]
    return [*model.variables, *states]


def values(model):
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables(model)]


def assign(model, saved):
    for variable, value in zip(variables(model), saved, strict=True):
        variable.assign(value)


def assert_runs_alike(model, *batches, num_in_keras=None, predict=None):
    """Asserts that one batch after the other gives what `model.predict` gives; the outputs."""
    before = values(model)
    predict = predict or (lambda x: model.predict(x, verbose=0))
    expected = [predict(x) for x in batches]
    assign(model, before)
    engine = Engine(model, 1)
    got = [engine.predict(x) for x in batches]
    for mine, keras_own in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=1e-4, atol=1e-5)
    state = values(model)
    in_keras = engine.summary(batches[0]).keras_layers
    for now, then in zip(values(model), state, strict=True):
        np.testing.assert_array_equal(now, then)
    if num_in_keras is not None:
        assert len(in_keras) == num_in_keras, in_keras
    return got


class MonteCarlo(layers.Layer):
    def __init__(self, rate, seed=7):
        super().__init__()
        self.dense, self.dropout = layers.Dense(60), layers.Dropout(rate, seed=seed)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dropout(self.dense(x), training=True)


def test_dropout_that_is_always_on():
    x = keras.Input((3,))
    model = randomize(keras.Model(x, layers.Dense(50)(MonteCarlo(0.5)(x))), 0.0)
    first, second = assert_runs_alike(model, numbers(4, 3), numbers(4, 3), num_in_keras=1)
    assert not np.array_equal(first, second)
    still = randomize(keras.Model(x, layers.Dense(5)(MonteCarlo(0.0)(x))))
    assert_same(still, numbers(4, 3))  # no Keras for what is not there


class Net(keras.Model):
    """Layers with `training` handed to one of them, and none to those behind."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def call(self, x):
        for layer, options in self.parts:
            x = layer(x, **options)
        return x


ON, OFF = {"training": True}, {"training": False}


def norm(mean=3.0):
    return layers.BatchNormalization(moving_mean_initializer=keras.initializers.Constant(mean))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: [(layers.Dense(4), {}), (norm(), ON), (layers.Dense(2), {})],
        lambda: [(norm(), OFF), (layers.Dense(2), {})],
        # Keras calls what comes behind a layer as it was told to call that one.
        lambda: [(layers.Dropout(0.0), ON), (norm(), {}), (layers.Dense(2), {})],
        lambda: [(layers.Dropout(0.0), ON), (layers.Dense(4), OFF), (norm(), {})],
        lambda: [(keras.Sequential([layers.Dense(4), norm()]), ON), (norm(9.0), {})],
        lambda: [(Outer(), {}), (norm(), {})],
        lambda: [(Outer(), {}), (layers.Dense(4), OFF), (norm(), {})],
        lambda: [(Named(), {}), (norm(), {})],
        lambda: [(keras.Sequential([keras.Input((3,)), Outer()]), {}), (norm(), {})],
    ],
)
def test_training_reaches_the_layers_that_it_does_in_keras(make):
    model = Net(*make())
    x = numbers(8, 3) * 5 + 3
    model(x)
    assert_runs_alike(randomize(model, 0.2), x)


class Outer(layers.Layer):
    """A sublayer is told, those behind are not."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dropout(0.0), norm()

    def build(self, shape):
        self.second.build(shape)

    def call(self, x):
        return self.second(self.first(x, training=True))


class Named(Outer):
    """Keras need not call it to know the shape of what it gives."""

    def compute_output_shape(self, shape):
        return shape


def test_functional_models_hand_on_what_they_are_called_with():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(norm()(layers.Dropout(0.5)(x, training=True))))
    data = numbers(8, 3)
    assert_same(randomize(model), data)  # `predict` says False, whatever the graph says
    inner = keras.Model(x, norm()(x))
    outer = Net((layers.Dense(3), {}), (inner, ON), (layers.Dense(2), {}))
    outer(data)
    assert_runs_alike(randomize(outer, 0.2), data)
    plain = Net((layers.Dense(3), {}), (inner, {}))  # neither is told anything
    plain(data)
    assert_runs_alike(randomize(plain, 0.2), data, num_in_keras=0)


def test_defaults_of_layers_that_nobody_tells():
    class Noisy(layers.Layer):
        def call(self, x, training=True):
            return x * 2 if training else x

    model = Net((layers.Dense(3), {}), (Noisy(), {}))
    model(numbers(2, 3))
    assert_runs_alike(randomize(model), numbers(2, 3))

    class Told(Net):
        def call(self, x, training=None):
            return super().call(x)

    model = Told((layers.Dense(3), {}), (Noisy(), {}))
    model(numbers(2, 3))
    assert_runs_alike(randomize(model), numbers(2, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LSTM(4, dropout=0.5, seed=1),
        lambda: layers.Bidirectional(layers.GRU(4, recurrent_dropout=0.3, seed=1)),
        lambda: layers.GaussianNoise(0.5, seed=1),
        lambda: layers.SpatialDropout1D(0.5, seed=1),
    ],
)
def test_noise_within_sequences(layer):
    model = Net((layers.Dense(6), {}), (layer(), ON), (layers.Dense(2), {}))
    model(numbers(3, 5, 4))
    assert_runs_alike(randomize(model), numbers(3, 5, 4), numbers(3, 5, 4))


def test_attention_with_dropout_that_is_on():
    class Attending(layers.Layer):
        def __init__(self):
            super().__init__()
            self.attention = layers.MultiHeadAttention(2, 4, dropout=0.5, seed=1)

        def build(self, shape):
            self.attention.build(shape, shape)

        def call(self, x):
            return self.attention(x, x, training=True)

    x = keras.Input((5, 6))
    model = keras.Model(x, layers.Dense(2)(Attending()(x)))
    first, second = assert_runs_alike(randomize(model), numbers(3, 5, 6), numbers(3, 5, 6))
    assert not np.array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LSTM(4, stateful=True, return_sequences=True),
        lambda: layers.Bidirectional(layers.GRU(4, stateful=True)),
        lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)], stateful=True),
    ],
)
@pytest.mark.parametrize("nesting", ["none", "model", "subclass"])
def test_states_outlive_a_call(layer, nesting):
    x = keras.Input(batch_shape=(2, 5, 3))
    model = keras.Model(x, layers.Dense(2)(layer()(layers.Dense(4)(x))))
    if nesting == "model":
        model = keras.Model(x, model(x))
    elif nesting == "subclass":
        model = Net((model, {}))
        model.build((2, 5, 3))
    batch = numbers(2, 5, 3)

    def call(x):  # `predict` forgets states on JAX, a call does not
        return ops.convert_to_numpy(model(x))

    randomize(model, 0.0)
    first, second = assert_runs_alike(model, batch, batch, num_in_keras=1, predict=call)
    assert not np.allclose(first, second)


class KeepsItsInput(layers.Layer):
    """Returns its sorted input plus the one before."""

    def build(self, shape):
        self.last = self.add_weight(shape=shape, initializer="zeros", trainable=False)

    def call(self, x):
        y = ops.sort(x) + self.last
        self.last.assign(x)
        return y


def test_an_input_that_a_layer_keeps_does_not_change():
    """JAX takes aligned memory as it is: also that of values within the engine."""
    x = keras.Input(batch_shape=(16, 64))
    y = KeepsItsInput()(layers.Dense(64, activation="tanh")(x))
    model = randomize(keras.Model(x, layers.Dense(8)(y)))
    batches = [numbers(16, 64, seed=seed) for seed in range(4)]
    assert_runs_alike(model, *batches, num_in_keras=1)


class AddIfGiven(layers.Layer):
    def call(self, x, y=None):
        return x if y is None else x + y

    def compute_output_spec(self, x, y=None):
        return keras.KerasTensor(x.shape, x.dtype)


def optional_model(structure):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b", optional=True)
    c = keras.Input((4,), name="c", optional=True)
    y = AddIfGiven()(AddIfGiven()(layers.Dense(4)(a), b), c)
    inputs = {"dict": {"a": a, "b": b, "c": c}, "list": [a, b, c]}[structure]
    return randomize(keras.Model(inputs, layers.Dense(3)(y)), 0.2)


@pytest.mark.parametrize("structure", ["dict", "list"])
@pytest.mark.parametrize("given", ["abc", "ab", "ac", "a"])
def test_optional_inputs(structure, given, tmp_path):
    model = optional_model(structure)
    x = {key: numbers(3, 4, seed=i) if key in given else None for i, key in enumerate("abc")}
    x = [*x.values()] if structure == "list" else x
    engine = Engine(model, 1)
    expected = model.predict(x, verbose=0)
    for got in (engine(x), engine.predict(x), engine.predict(x, batch_size=2)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert engine.summary(x).rows
    assert engine.benchmark(x, seconds=0.01).batch_size == 3
    with pytest.raises(ValueError, match="optional inputs cannot be saved"):
        engine.save(tmp_path / "model.engine")


def test_inputs_that_are_not_optional():
    engine = Engine(optional_model("dict"), 1)
    with pytest.raises(ValueError, match="'a' must be an array of numbers"):
        engine({"a": None, "b": numbers(2, 4), "c": None})


class Flattened(layers.Layer):
    """Works on examples and steps alike, and gives them their axes back."""

    def call(self, x):
        flat = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(ops.cumsum(ops.tanh(flat), axis=-1), ops.shape(x))


@pytest.mark.parametrize("steps", [5, None])
def test_sizes_that_only_a_call_knows(steps):
    x = keras.Input((steps, 4))
    model = randomize(keras.Model(x, layers.Dense(2)(Flattened()(x))))
    for shape in ((3, 5, 4), (1, 5, 4)) + (((2, 7, 4),) if steps is None else ()):
        assert_same(model, numbers(*shape), native=False)


def batches_of(x):
    for start in range(0, len(x), 4):
        yield (x[start : start + 4],)


class Data(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return -(-len(self.x) // 4)

    def __getitem__(self, i):
        return self.x[4 * i : 4 * i + 4], np.zeros(len(self.x[4 * i : 4 * i + 4]))


@pytest.fixture(scope="module")
def dense_model():
    return randomize(keras.Sequential([keras.Input((6,)), layers.Dense(3)]), 0.2)


def test_predict_takes_what_keras_takes(dense_model):
    x = numbers(10, 6)
    expected, engine = dense_model.predict(x, verbose=0), Engine(dense_model, 1)

    def check(data, expected=expected, **options):
        np.testing.assert_allclose(engine.predict(data, **options), expected, rtol=1e-5, atol=1e-6)

    check(x.tolist())
    check(batches_of(x))
    check(Data(x))
    check(x, expected[:8], batch_size=4, steps=2)
    check(batches_of(x), expected[:4], steps=1)
    torch = pytest.importorskip("torch")
    check(torch.from_numpy(x))
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.zeros(10))
    check(torch.utils.data.DataLoader(dataset, batch_size=3))
    tf = pytest.importorskip("tensorflow")
    check(tf.constant(x))
    check(tf.data.Dataset.from_tensor_slices((x, x)).batch(3))
    with pytest.raises(ValueError, match="at least|`data` must"):
        engine.predict(x for x in ())
    for options in ({"steps": 0}, {"batch_size": -1}, {"verbose": 3}):
        with pytest.raises(ValueError, match=next(iter(options))):
            engine.predict(x, **options)


def test_errors_about_data_name_the_argument(dense_model):
    engine = Engine(dense_model, 1)
    for data in ("x.npy", None, iter([])):
        with pytest.raises(ValueError, match="^`x` must be what `model.predict` takes.*Received: "):
            engine.predict(data)


def test_predict_shows_a_bar(dense_model, capsys):
    engine = Engine(dense_model, 1)
    engine.predict(numbers(10, 6), batch_size=4)
    assert capsys.readouterr().out == ""
    engine.predict(numbers(10, 6), batch_size=4, verbose=1)
    assert "3/3" in capsys.readouterr().out
    engine.predict(batches_of(numbers(10, 6)), verbose="auto")
    assert "3/" in capsys.readouterr().out


def test_iterables_without_keras(dense_model, monkeypatch, capsys):
    x, engine = numbers(10, 6), Engine(dense_model, 1)
    expected = engine.predict(x)
    monkeypatch.setitem(__import__("sys").modules, "keras", None)
    monkeypatch.setitem(__import__("sys").modules, "keras.utils", None)

    def check(data, expected, **options):  # kernels differ by the size of a batch
        np.testing.assert_allclose(engine.predict(data, **options), expected, rtol=1e-5, atol=1e-6)

    check(batches_of(x), expected, verbose=1)
    assert "3/3" in capsys.readouterr().out
    check((x[:4] for _ in range(2)), [*expected[:4]] * 2)
    for wrong in (iter(()), 7):
        with pytest.raises(ValueError, match="`x` must "):
            engine.predict(wrong)
