"""Models as files on the active backend: our files hold what a `.keras` file holds."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_trim
from keras_trim.storage import building

KERNELS_AT = 0.8


def values(variable):
    return keras.ops.convert_to_numpy(variable.value)


def assert_same_variables(variables, others):
    assert len(variables) == len(others)
    for mine, theirs in zip(variables, others, strict=True):
        assert mine.dtype == theirs.dtype
        assert values(mine).tobytes() == values(theirs).tobytes(), mine.path


@keras.saving.register_keras_serializable(package="tests.storage")
class Block(layers.Layer):
    """Sublayers in containers, its own weights, and a variable made from a value."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.parts = [layers.Dense(units), {"deep": layers.Dense(units)}]
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")
        self.counter = keras.Variable(np.arange(3, dtype="int32"), trainable=False)

    def build(self, input_shape):
        self.parts[0].build(input_shape)
        self.parts[1]["deep"].build((*input_shape[:-1], self.units))

    def call(self, x):
        return self.parts[1]["deep"](self.parts[0](x)) * self.gain

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests.storage")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(16, activation="relu")
        self.out = layers.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))


def make_cnn():
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(8, 3),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def make_text():
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(50, 16)(inputs)
    x = layers.Bidirectional(layers.LSTM(8, dropout=0.1, return_sequences=True))(x)
    x = layers.MultiHeadAttention(2, 8)(x, x)
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(x)))


def make_custom():
    inputs = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="inner")])
    inner.compile("adam", "mse")
    inner.optimizer.build(inner.trainable_variables)
    return keras.Model(inputs, layers.Dense(1)(Block(5)(inner(inputs))))


def make_half():
    inputs = keras.Input((6,))
    x = layers.Dense(8, dtype="bfloat16")(inputs)
    x = layers.Dense(8, dtype="float16")(x)
    return keras.Model(inputs, layers.Dense(1, dtype="mixed_float16")(x))


def make_int8():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(32), layers.Dense(8)])
    for layer in model.layers:
        layer.quantize("int8")
    return model


def make_normalized():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).random((20, 6)).astype("float32"))
    return keras.Sequential([keras.Input((6,)), norm, layers.Dense(2)])


def make_subclassed():
    model = Subclassed()
    model(np.zeros((1, 6), "float32"))
    return model


MAKERS = [
    *(make_cnn, make_text, make_custom, make_half, make_int8, make_normalized, make_subclassed),
]


def batch_for(model, count=8):
    shape = (6,) if isinstance(model, Subclassed) else model.input_shape[1:]
    rng = np.random.default_rng(1)
    if getattr(model, "inputs", None) and "int" in model.inputs[0].dtype:
        return rng.integers(0, 50, (count, *shape)).astype("int32")
    return rng.random((count, *shape)).astype("float32")


def config_text(model):
    """Returns a model's configuration without what Keras renumbers in every model."""
    text = json.dumps(keras.saving.serialize_keras_object(model), sort_keys=True)
    return re.sub(r'("shared_object_id": )\d+', r"\1", text)


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS)
def test_models_come_back_bit_for_bit(make, tmp_path):
    model = make()
    if make is not make_int8:
        keras_trim.prune(model, KERNELS_AT)
    result = keras_trim.save(model, tmp_path / "model.ktrim")
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    assert type(loaded) is type(model)
    model.save(tmp_path / "model.keras")
    keras_own = keras.models.load_model(tmp_path / "model.keras")
    assert config_text(loaded) == config_text(keras_own)
    assert_same_variables(model.variables, loaded.variables)
    assert result.largest_error == 0
    assert result.file_bytes == (tmp_path / "model.ktrim").stat().st_size
    assert "lossless" in str(result)

    # Load into an existing model.
    for variable in loaded.variables:
        variable.assign(keras.ops.ones_like(variable.value))
    assert keras_trim.load(tmp_path / "model.ktrim", loaded) is loaded
    assert_same_variables(model.variables, loaded.variables)

    x = batch_for(model)
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_a_small_model_is_not_all_description(tmp_path):
    result = keras_trim.save(make_cnn(), tmp_path / "model.ktrim")
    description = result.file_bytes - sum(array.stored_bytes for array in result.arrays)
    assert description < 700  # 1,470 without a dictionary


def test_the_same_model_gives_the_same_file(tmp_path):
    """Keras identifies shared objects, such as policies, by their address in memory."""
    config = json.dumps(keras.saving.serialize_keras_object(make_text()))
    models, files = [], []
    for _ in range(2):
        keras.config.set_dtype_policy(keras.DTypePolicy("float32"))  # at a new address
        models.append(keras.saving.deserialize_keras_object(json.loads(config)))
        for variable in models[-1].variables:
            variable.assign(keras.ops.ones_like(variable.value))
        keras_trim.save(models[-1], tmp_path / "model.ktrim")
        files.append((tmp_path / "model.ktrim").read_bytes())
    assert files[0] == files[1]


def compiled(optimizer="adam"):
    model = make_cnn()
    model.layers[3].rate = 0.0  # PyTorch's dropout has its own generator
    keras_trim.prune(model, KERNELS_AT)
    model.compile(
        keras.optimizers.get(optimizer),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")],
    )
    model.fit(batch_for(model, 16), np.arange(16) % 10, batch_size=4, verbose=0)
    return model


@pytest.mark.filterwarnings("ignore:3 weights were pruned")
def test_compile_state_and_a_fresh_optimizer(tmp_path):
    model = compiled(keras.optimizers.AdamW(0.003, weight_decay=0.01, clipnorm=1.0))
    keras_trim.save(model, tmp_path / "model.ktrim")
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    assert loaded.get_compile_config() == model.get_compile_config()
    assert_same_variables(model.variables[:-4], loaded.variables[: len(model.variables) - 4])
    assert int(loaded.optimizer.iterations.value) == 0
    x, y = batch_for(model), np.arange(8)
    mine, theirs = (each.evaluate(x, y, verbose=0, return_dict=True) for each in (model, loaded))
    assert mine == theirs
    assert set(mine) == {"accuracy", "loss", "top3"}
    loaded.fit(x, y, verbose=0)
    assert not keras_trim.load(tmp_path / "model.ktrim", compile=False).compiled


@pytest.mark.filterwarnings("ignore:3 weights were pruned")
def test_training_resumes_with_the_optimizers_state(tmp_path):
    model = compiled()
    small = keras_trim.save(model, tmp_path / "small.ktrim")
    result = keras_trim.save(model, tmp_path / "model.ktrim", include_optimizer=True)
    assert result.file_bytes > 2 * small.file_bytes
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    assert_same_variables(model.optimizer.variables, loaded.optimizer.variables)
    fresh = make_cnn()
    fresh.compile("adam", "mse")
    keras_trim.load(tmp_path / "model.ktrim", fresh)
    assert_same_variables(model.optimizer.variables, fresh.optimizer.variables)
    keras_trim.load(tmp_path / "model.ktrim", make_cnn())  # not compiled
    x, y = batch_for(model, 16), np.arange(16) % 10
    for each in (model, loaded):
        each.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert_same_variables(model.optimizer.variables, loaded.optimizer.variables)
    assert_same_variables(model.weights, loaded.weights)


@pytest.mark.filterwarnings("ignore:(Training ended|The pruning schedule ends) at step")
def test_a_model_that_is_being_pruned(data, mlp, tmp_path):
    keras_trim.prune_low_magnitude(mlp, keras_trim.PolynomialDecay(0.2, 0.8, 0, 100, frequency=2))
    mlp.compile("adam", "mse")
    mlp.fit(*data, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    with pytest.warns(UserWarning, match="still being pruned.*include_optimizer=True"):
        keras_trim.save(mlp, tmp_path / "model.ktrim")
    keras_trim.save(mlp, tmp_path / "model.ktrim", include_optimizer=True)
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    assert type(loaded.optimizer) is keras_trim.PruningOptimizer
    assert_same_variables(mlp.optimizer.variables, loaded.optimizer.variables)
    for each in (mlp, loaded):
        each.fit(*data, shuffle=False, verbose=0)
    assert_same_variables(mlp.weights, loaded.weights)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 0.504 / 127)],
)
def test_rounded_values(kind, error, tmp_path):
    model = make_cnn()
    keras_trim.prune(model, KERNELS_AT)
    exact = keras_trim.save(model, tmp_path / "exact.ktrim")
    result = keras_trim.save(model, tmp_path / "model.ktrim", values=kind)
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    assert result.file_bytes < exact.file_bytes
    seen = 0.0
    for mine, theirs in zip(model.weights, loaded.weights, strict=True):
        before, after = values(mine), values(theirs)
        assert before.dtype == after.dtype
        if before.ndim < 2:
            np.testing.assert_array_equal(before, after)
        else:
            assert not after[before == 0].any()
            assert 0 < abs(before - after).max() <= 1.001 * error * abs(before).max()
            seen = max(seen, float(abs(before - after).max()))
    assert result.largest_error == seen
    assert f"values changed by {seen:.3g} at most" in str(result)
    worst = max(result.arrays, key=lambda array: array.largest_error)
    assert worst.name in str(result)
    # Saving it again changes nothing.
    keras_trim.save(loaded, tmp_path / "again.ktrim", values=kind if kind != "int8" else None)
    assert_same_variables(loaded.weights, keras_trim.load(tmp_path / "again.ktrim").weights)


def test_values_that_rounding_would_destroy_stay_exact(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(3), layers.Dense(3)])
    large, infinite, dead = (layer.kernel for layer in model.layers)
    large.assign(np.full((4, 3), 1e6, "float32"))
    infinite.assign(np.array([[1, 0.1, np.inf], [np.nan, 0, 0], [-0.0, 0, 0]], "float32"))
    dead.assign(np.array([[1, 0, 1e-45], [3, 0, 0], [0.1, 0, 0]], "float32"))
    for kind in ("float16", "bfloat16", "int8"):
        keras_trim.save(model, tmp_path / "model.ktrim", values=kind)
        loaded = keras_trim.load(tmp_path / "model.ktrim")
        assert_same_variables([infinite], [loaded.layers[1].kernel])
        np.testing.assert_allclose(values(loaded.layers[0].kernel), 1e6, rtol=2**-8)
        np.testing.assert_allclose(values(loaded.layers[2].kernel), values(dead), atol=3 / 127)
    keras_trim.save(model, tmp_path / "model.ktrim", values="float16")
    assert_same_variables([large], [keras_trim.load(tmp_path / "model.ktrim").layers[0].kernel])


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 65504), ("float32", 3.402e38)])
def test_rounding_never_makes_a_value_infinite(dtype, largest, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, dtype=dtype)])
    model.layers[0].kernel.assign(np.full((4, 2), largest, dtype))
    for kind in ("bfloat16", "int8"):
        result = keras_trim.save(model, tmp_path / "model.ktrim", values=kind)
        after = values(keras_trim.load(tmp_path / "model.ktrim").layers[0].kernel)
        np.testing.assert_allclose(after.astype("float64"), largest, rtol=0.01)
        assert np.isfinite(result.largest_error)


def test_vocabularies(tmp_path):
    pytest.importorskip("tensorflow")
    words = layers.StringLookup(vocabulary=["käse", "brot", "wein\tund"])
    inputs = keras.Input((2,), dtype="string")
    model = keras.Model(inputs, layers.Embedding(4, 3)(words(inputs)))
    keras_trim.save(model, tmp_path / "model.ktrim")
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    (lookup,) = (layer for layer in loaded.layers if isinstance(layer, layers.StringLookup))
    assert lookup.get_vocabulary() == words.get_vocabulary()
    keras_trim.load(tmp_path / "model.ktrim", loaded)
    assert lookup.get_vocabulary() == words.get_vocabulary()


def test_code_in_a_file_does_not_run(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: x + 1)])
    keras_trim.save(model, tmp_path / "model.ktrim")
    with pytest.raises(keras_trim.FormatError, match="cannot be built.*lambda"):
        keras_trim.load(tmp_path / "model.ktrim")
    loaded = keras_trim.load(tmp_path / "model.ktrim", safe_mode=False)
    assert float(loaded(np.zeros((1, 2)))[0, 0]) == 1


def test_classes_that_are_not_registered(tmp_path):
    class Twice(layers.Layer):
        def call(self, x):
            return 2 * x

    model = keras.Sequential([keras.Input((2,)), Twice(), layers.Dense(1)])
    keras_trim.save(model, tmp_path / "model.ktrim")
    with pytest.raises(keras_trim.FormatError, match="cannot be built: Could not locate.*Twice"):
        keras_trim.load(tmp_path / "model.ktrim")
    loaded = keras_trim.load(tmp_path / "model.ktrim", custom_objects={"Twice": Twice})
    assert_same_variables(model.variables, loaded.variables)


def test_a_model_of_another_structure(mlp, tmp_path):
    keras_trim.save(mlp, tmp_path / "model.ktrim")
    smaller = keras.Sequential([keras.Input((8,)), layers.Dense(16)])
    with pytest.raises(ValueError, match="do not match: the model has no layers/dense_1/vars/0"):
        keras_trim.load(tmp_path / "model.ktrim", smaller)
    wider = keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.Dense(2)])
    before = [values(variable) for variable in wider.variables]
    with pytest.raises(ValueError, match="do not match: dense.*shape") as caught:
        keras_trim.load(tmp_path / "model.ktrim", wider)
    for variable, value in zip(wider.variables, before, strict=True):  # not partly loaded
        np.testing.assert_array_equal(values(variable), value)
    assert "[[" not in str(caught.value)  # the message does not include the values
    deeper = keras.Sequential([keras.Input((8,)), *(layers.Dense(n) for n in (16, 1, 1))])
    with pytest.raises(ValueError, match="do not match: dense.*received 0 variables"):
        keras_trim.load(tmp_path / "model.ktrim", deeper)


def test_wrong_arguments(mlp, tmp_path):
    path = tmp_path / "model.ktrim"
    with pytest.raises(ValueError, match="must end in `.ktrim`"):
        keras_trim.save(mlp, tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"write 'model.ktrim'. Received: path=''"):
        keras_trim.save(mlp, "")
    with pytest.raises(ValueError, match="'int8'. Received: values='int4'"):
        keras_trim.save(mlp, path, values="int4")
    with pytest.raises(ValueError, match="must be a Keras model; read the file first.*Received"):
        keras_trim.save("model", path)
    with pytest.raises(ValueError, match="no weights yet.*Received: model=unbuilt"):
        keras_trim.save(keras.Sequential([layers.Dense(1)], name="unbuilt"), path)
    unbuilt = Subclassed(name="unbuilt")
    unbuilt.drop = layers.Dropout(0.5)  # whose generator has a state
    unbuilt.compile("adam", "mse", metrics=["mae"])
    with pytest.raises(ValueError, match="no weights yet.*Received: model=unbuilt"):
        keras_trim.save(unbuilt, path)
    keras_trim.save_arrays({"w": np.ones(3)}, path)
    with pytest.raises(keras_trim.FormatError, match="arrays but no model.*load_arrays"):
        keras_trim.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.ktrim"]


def test_arrays_of_a_model(mlp, tmp_path):
    keras_trim.save(mlp, tmp_path / "model.ktrim")
    arrays = keras_trim.load_arrays(tmp_path / "model.ktrim")
    np.testing.assert_array_equal(arrays["layers/dense/vars/0"], values(mlp.layers[0].kernel))
    assert arrays["layers/dense_1/vars/1"].shape == (1,)


def test_several_outputs_and_an_average_of_weights(tmp_path):
    x = keras.Input((4,))
    outputs = {name: layers.Dense(1, name=name)(x) for name in ("a", "b")}
    model = keras.Model(x, outputs)
    model.compile(
        keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
        loss={"a": "mse", "b": "mae"},
        metrics={"b": ["mse"]},
    )
    data = np.ones((4, 4)), {"a": np.ones((4, 1)), "b": np.zeros((4, 1))}
    model.fit(*data, verbose=0)
    keras_trim.save(model, tmp_path / "model.ktrim", include_optimizer=True)
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    assert_same_variables(model.optimizer.variables, loaded.optimizer.variables)
    mine, theirs = (each.evaluate(*data, verbose=0, return_dict=True) for each in (model, loaded))
    assert mine == theirs
    assert {"a_loss", "b_loss", "b_mse"} < {*mine}


def test_a_file_of_another_backend():
    """`tests/data/tiny.ktrim` was written on JAX."""
    path = pathlib.Path(__file__).parents[1] / "data" / "tiny.ktrim"
    loaded, arrays = keras_trim.load(path), keras_trim.load_arrays(path)
    kernel, bias, step = (
        arrays[name] for name in ("layers/dense/vars/0", "layers/dense/vars/1", "optimizer/vars/0")
    )
    x = np.arange(8, dtype="float32").reshape(2, 4)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), x @ kernel + bias, rtol=1e-6)
    assert int(loaded.optimizer.iterations.value) == step == 3
    assert np.count_nonzero(kernel) == 6


def test_a_small_model_is_larger_as_a_file(mlp, tmp_path):
    assert "times larger than in memory" in str(keras_trim.save(mlp, tmp_path / "model.ktrim"))


def test_lora_is_merged(mlp, tmp_path):
    mlp.layers[0].enable_lora(2)
    mlp.layers[0].lora_kernel_b.assign(np.ones((2, 16)))
    keras_trim.save(mlp, tmp_path / "model.ktrim")
    loaded, x = keras_trim.load(tmp_path / "model.ktrim"), np.ones((1, 8))
    np.testing.assert_allclose(loaded.predict(x), mlp.predict(x), rtol=1e-5)


@keras.saving.register_keras_serializable(package="tests.storage")
class Forgetful(layers.Dense):
    def save_own_variables(self, store):
        store["kernel"] = self.kernel

    def load_own_variables(self, store):
        self.kernel.assign(store["kernel"])


def test_weights_that_a_layer_does_not_save_begin_as_they_do(tmp_path):
    model = keras.Sequential([keras.Input((3,)), Forgetful(4, bias_initializer="ones")])
    keras_trim.save(model, tmp_path / "model.ktrim")
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    assert_same_variables(model.variables, loaded.variables)


@keras.saving.register_keras_serializable(package="tests.storage")
class Versioned(layers.Layer):
    """Saves an entry that it does not read, and one with a slash in its name."""

    def save_own_variables(self, store):
        store["version"] = np.int64(2)
        store["tables/first"] = np.arange(3)

    def load_own_variables(self, store):
        assert sorted(store.keys()) == ["tables/first", "version"]
        self.first = np.asarray(store["tables/first"])

    def call(self, x):
        return x


def test_entries_of_a_layer_of_the_user(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Versioned(), layers.Dense(2)])
    keras_trim.save(model, tmp_path / "model.ktrim")
    for given in (None, model):
        loaded = keras_trim.load(tmp_path / "model.ktrim", given)
        np.testing.assert_array_equal(loaded.layers[0].first, np.arange(3))
        assert_same_variables(model.variables, loaded.variables)


@keras.saving.register_keras_serializable(package="tests.storage")
class Revising(layers.Dense):
    """Replaces one entry of its superclass, reading it, and deletes the other."""

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["0"] = store["0"] * 0 + 3
        del store["1"]

    def load_own_variables(self, store):
        assert [*store.keys()] == ["0"]
        self.kernel.assign(store["0"])


@pytest.mark.parametrize("options", [{}, {"values": "int8", "include_optimizer": True}])
def test_entries_that_a_layer_replaces_or_deletes(options, tmp_path):
    model = keras.Sequential([keras.Input((4,)), Revising(2), layers.Dense(2)])
    result = keras_trim.save(model, tmp_path / "model.ktrim", **options)
    assert sorted(array.shape for array in result.arrays) == [(2,), (2, 2), (4, 2)]
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    np.testing.assert_allclose(values(loaded.layers[0].kernel), np.full((4, 2), 3), rtol=0.01)


@keras.saving.register_keras_serializable(package="tests.storage")
class Table(layers.Layer):
    def __init__(self, of, **kwargs):
        super().__init__(**kwargs)
        self.of = of

    def build(self, input_shape):
        options = {"dtype": self.of, "trainable": False, "initializer": "ones"}
        self.table = self.add_weight(shape=(2, 2), **options)

    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), "of": self.of}


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bool", "uint8", "float16"])
def test_weights_of_any_dtype(dtype, tmp_path):
    if "float8" in dtype and keras.backend.backend() != "jax":
        pytest.skip("Keras makes or reads no such weights on this backend")
    model = keras.Sequential([keras.Input((4,)), Table(dtype)])
    keras_trim.save(model, tmp_path / "model.ktrim")
    (loaded,) = keras_trim.load(tmp_path / "model.ktrim").weights
    assert loaded.dtype == dtype
    np.testing.assert_array_equal(values(loaded).astype("float32"), np.ones((2, 2)))


def test_a_bias_that_the_model_lacks(tmp_path):
    keras_trim.save(keras.Sequential([keras.Input((4,)), layers.Dense(2)]), tmp_path / "m.ktrim")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, use_bias=False)])
    with pytest.raises(ValueError, match="do not match"):
        keras_trim.load(tmp_path / "m.ktrim", model)


@keras.saving.register_keras_serializable(package="tests.storage")
class Optimizer(layers.Dense):
    """A layer whose path is like that of an optimizer."""


@pytest.mark.parametrize("include_optimizer", [False, True])
def test_only_values_of_optimizers_are_never_rounded(include_optimizer, tmp_path):
    model = keras.Sequential([keras.Input((40,)), Optimizer(30)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 40)), np.ones((2, 30)), verbose=0)
    path = tmp_path / "model.ktrim"
    result = keras_trim.save(model, path, values="int8", include_optimizer=include_optimizer)
    rounded = [array.name for array in result.arrays if array.largest_error]
    assert rounded == ["layers/optimizer/vars/0"]
    loaded = keras_trim.load(path)
    if include_optimizer:
        assert_same_variables(model.optimizer.variables, loaded.optimizer.variables)


def test_layers_without_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(building, "_FREE_SEQUENTIAL", 5)
    path = tmp_path / "model.ktrim"
    some = [layers.ReLU() for _ in range(12)]
    keras_trim.save(keras.Sequential([keras.Input((4,)), layers.Dense(2), *some]), path)
    keras_trim.load(path)
    path.unlink()
    with pytest.raises(ValueError, match="too many layers without weights.*Received: model=seq"):
        keras_trim.save(keras.Sequential([keras.Input((4,)), *some]), path)
    assert not list(tmp_path.iterdir())


@keras.saving.register_keras_serializable(package="tests.storage")
class Counting(keras.initializers.Ones):
    calls = 0

    def __call__(self, shape, dtype=None):
        Counting.calls += 1
        return super().__call__(shape, dtype)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch copies into what it has")
def test_values_that_are_replaced_are_not_drawn(tmp_path):
    counting = {"kernel_initializer": Counting(), "bias_initializer": Counting()}
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, **counting)])
    model.add(Forgetful(4, **counting))
    for weight in model.weights:
        weight.assign(weight + 1)
    keras_trim.save(model, tmp_path / "model.ktrim")
    Counting.calls = 0
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    assert Counting.calls == 1  # for the bias, which its layer does not save
    assert_same_variables(model.variables[:3], loaded.variables[:3])
    np.testing.assert_array_equal(values(loaded.variables[3]), np.ones(4))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="modules of PyTorch")
@pytest.mark.parametrize("make", [make_cnn, make_custom, make_text, make_subclassed])
def test_parameters_are_those_that_keras_registers(make, tmp_path):
    model = make()
    keras_trim.save(model, tmp_path / "model.ktrim")
    model.save(tmp_path / "model.keras")
    loaded = keras_trim.load(tmp_path / "model.ktrim")
    keras_own = keras.models.load_model(tmp_path / "model.keras")
    shapes = [
        sorted(tuple(value.shape) for value in each.parameters()) for each in (loaded, keras_own)
    ]
    assert shapes[0] == shapes[1]
    registered = {tuple(value.shape) for value in loaded.state_dict().values()}
    assert registered == set(shapes[0]) != set()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX compiles what makes weights")
def test_loading_compiles_nothing_for_the_weights(tmp_path, caplog):
    import jax

    x = keras.Input((7,))
    keras_trim.save(keras.Model(x, layers.Dense(11)(x)), tmp_path / "model.ktrim")
    with jax.log_compiles():
        jax.jit(lambda array: array + 1)(np.ones((3, 5)))
        keras_trim.load(tmp_path / "model.ktrim")
    assert "[3,5]" in caplog.text
    assert "[7,11]" not in caplog.text
