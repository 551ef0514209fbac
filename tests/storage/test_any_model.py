"""Whatever loads as `.keras` loads as `.ktrim`: random models, states, files of older versions."""

import pathlib

import keras
import numpy as np
import pytest
import random_models
from hypothesis import HealthCheck, given, settings
from keras import layers

import keras_trim

DATA = pathlib.Path(__file__).parent.parent / "data"


def values(model):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*destroy the mask information")  # they may drop masks
@given(random_models.models())
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_models_come_back(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("models") / "model.ktrim"
    keras_trim.save(model, path)
    loaded = keras_trim.load(path)
    assert type(loaded) is type(model)
    for mine, theirs in zip(values(model), values(loaded), strict=True):
        np.testing.assert_array_equal(mine, theirs)


STEPS = (4, 6, 3)


class Plain(layers.Layer):
    """Not registered: the user passes it."""

    def build(self, shape):
        start = np.arange(shape[-1], dtype="float32")
        self.table = keras.Variable(start, trainable=False, name="table")

    def call(self, x):
        return x * self.table


def cells():
    return [layers.LSTMCell(2), layers.GRUCell(3)]


def with_metrics(x):
    model = keras.Model(x, layers.Dense(2)(x))
    model.compile("adam", "mse", metrics=["mae", keras.metrics.RootMeanSquaredError()])
    model.fit(np.ones(STEPS), np.ones((*STEPS[:2], 2)), verbose=0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda x: keras.Model(x, layers.LSTM(5, stateful=True)(x)),
        lambda x: keras.Model(x, layers.RNN(cells(), stateful=True)(x)),
        lambda x: keras.Model(x, layers.Bidirectional(layers.GRU(5, stateful=True))(x)),
        # Keras builds a third LSTM of this size, which is no part of the model.
        lambda x: keras.Model(x, layers.Bidirectional(layers.LSTM(300))(x)),
        lambda x: keras.Model(x, layers.Dense(2)(Plain()(layers.LSTM(5, stateful=True)(x)))),
        lambda x: keras.Model(x, layers.Dropout(0.5, seed=3)(layers.GaussianNoise(0.1)(x))),
        lambda x: keras.Model(x, layers.LSTM(4, dropout=0.5, dtype="mixed_bfloat16")(x)),
        with_metrics,
    ],
)
def test_what_keras_loads(make, tmp_path):
    model = make(keras.Input(batch_shape=STEPS))
    for variable in model.weights:
        if "float" in variable.dtype:
            start = np.random.default_rng(0).standard_normal(variable.shape)
            variable.assign(start.astype("float32"))
    given = {"Plain": Plain}
    model.save(tmp_path / "a.keras")
    by_keras = keras.models.load_model(tmp_path / "a.keras", custom_objects=given)
    keras_trim.save(model, tmp_path / "a.ktrim")
    loaded = keras_trim.load(tmp_path / "a.ktrim", custom_objects=given)
    for mine, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine, theirs)))
    data = np.random.default_rng(1).standard_normal(STEPS).astype("float32")
    ours, theirs = (keras.ops.convert_to_numpy(m(data)) for m in (loaded, by_keras))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def with_batches(config, size):
    """Returns a layer's configuration with this batch size, also for layers inside it."""
    if isinstance(config, dict):
        config = {key: with_batches(value, size) for key, value in config.items()}
        if config.get("build_config"):
            config["build_config"]["input_shape"][0] = size
        return config
    return [with_batches(item, size) for item in config] if isinstance(config, list) else config


def without_builds(config, _):
    """The same for layers that are built on their first call."""
    if isinstance(config, dict):
        items = config.items()
        return {key: without_builds(value, _) for key, value in items if key != "build_config"}
    return [without_builds(item, _) for item in config] if isinstance(config, list) else config


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(5, stateful=True),
        lambda: layers.Bidirectional(layers.GRU(5, stateful=True)),
        lambda: layers.RNN(cells(), stateful=True),
    ],
)
@pytest.mark.parametrize("change_builds", [with_batches, without_builds])
def test_states_that_are_too_large(make, change_builds, tmp_path):
    """A tiny file that claims a huge batch size."""
    from test_hostile import layer_config, with_config

    x = keras.Input(batch_shape=STEPS)
    path = tmp_path / "a.ktrim"
    keras_trim.save(keras.Model(x, make()(x)), path)

    def change(config):
        layer_config(config, 0)["config"]["batch_shape"][0] = 1 << 34
        config["config"]["layers"][1] = change_builds(layer_config(config, 1), 1 << 34)

    with_config(path, change)
    with pytest.raises(keras_trim.FormatError, match="whose states take"):
        keras_trim.load(path)


def test_files_of_version_0_1_0():
    from keras_trim.inference import Engine

    data = np.load(DATA / "version_0_1_0.npz")
    x = {name: data[name] for name in ("image", "tokens")}
    model = keras_trim.load(DATA / "version_0_1_0.ktrim")
    engine = Engine.load(DATA / "version_0_1_0.engine", num_threads=1)
    for outputs in (model.predict(x, verbose=0), engine(x)):
        for name in ("classes", "features"):
            np.testing.assert_allclose(outputs[name], data[name], rtol=1e-4, atol=1e-5)
