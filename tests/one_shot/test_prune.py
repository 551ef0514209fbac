"""`keras_trim.prune` on examples, as users call it."""

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import make_mlp, values
from keras import layers

import keras_trim
from keras_trim.one_shot import dense_products
from keras_trim.one_shot.products import products_of

METHODS = ("reconstruct", "sparsegpt", "wanda", "magnitude")


def correlated(rng, *shape):
    """Examples of fewer directions than numbers, as real data are."""
    size = int(np.prod(shape[1:]))
    x = rng.standard_normal((shape[0], 6)) @ rng.standard_normal((6, size))
    x += 0.3 * rng.standard_normal(x.shape)
    return x.reshape(shape).astype("float32")


def mlp():
    return keras.Sequential(
        [
            keras.Input((24,)),
            layers.Dense(32, activation="relu", name="first"),
            layers.Dense(16, activation="relu", name="second"),
            layers.Dense(8, name="out"),
        ]
    )


class Subclassed(keras.Model):
    """Layers in a list, one of them called twice, and an output of attention."""

    def __init__(self):
        super().__init__()
        self.blocks = [layers.Dense(6, activation="tanh") for _ in range(2)]
        self.attention = layers.MultiHeadAttention(2, 3)
        self.head = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(5)])

    def call(self, x):
        x = self.blocks[0](x) + x
        x = self.blocks[1](self.blocks[0](x)) + x
        x = x + self.attention(x, x)
        return self.head(x)


def convolutional():
    """Grouped, separable and nested convolutions, some without a bias ahead of a normalization."""
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 8)),
            layers.SeparableConv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(12, 3, use_bias=False, name="plain"),
            layers.BatchNormalization(name="normalization"),
        ]
    )
    x = inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, strides=2, padding="same", groups=2, activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(8, 1)(x)])
    x = layers.GlobalAveragePooling2D()(inner(x))
    return keras.Model(inputs, layers.Dense(6)(x))


def recurrent():
    return keras.Sequential(
        [
            keras.Input((5, 6)),
            layers.Bidirectional(layers.LSTM(8, return_sequences=True)),
            layers.GRU(8),
            layers.Dense(6),
        ]
    )


MODELS = {
    "dense": (mlp, (24,)),
    "subclassed": (Subclassed, (4, 6)),
    "convolutional": (convolutional, (8, 8, 4)),
}


def relative_error(model, x, before):
    after = values(model(x))
    return np.mean((after - before) ** 2) / np.mean((before - before.mean(0)) ** 2)


def draw_weights(model, seed):
    """The same weights on every backend."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            scale = np.prod(variable.shape[:-1]) ** -0.5
            variable.assign((scale * rng.standard_normal(variable.shape)).astype("float32"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_outputs_stay_close(name, rng):
    make, shape = MODELS[name]
    x = correlated(rng, 96, *shape)
    errors = dict.fromkeys(METHODS, 0.0)
    for method, seed in itertools.product(METHODS, range(4)):  # single draws differ much
        model = make()
        model(x)
        draw_weights(model, seed)
        before = values(model(x))
        pruned = keras_trim.prune(
            model, 0.6, calibration_data=x, method=method, update_statistics=False
        )
        assert pruned is model
        errors[method] += relative_error(model, x, before)
        rows = keras_trim.sparsity_report(model).pruned_rows
        assert rows
        assert all(row.zeros == round(row.size * 0.6) for row in rows)
    assert errors["reconstruct"] < 0.5 * errors["magnitude"]
    assert errors["reconstruct"] < errors["sparsegpt"] < errors["magnitude"]


@pytest.mark.parametrize("name", MODELS)
def test_no_zeros_change_nothing(name, rng):
    make, shape = MODELS[name]
    model, x = make(), correlated(rng, 32, *shape)
    before = values(model(x))
    for update_statistics in (None, "relative"):
        keras_trim.prune(model, 0.0, calibration_data=x, update_statistics=update_statistics)
        np.testing.assert_allclose(values(model(x)), before, atol=1e-4)


def test_patterns(rng):
    x = correlated(rng, 48, 8, 8, 4)
    blocks = keras_trim.prune(convolutional(), 0.5, block_size=(2, 2), calibration_data=x)
    kernel = values(blocks.layers[1].kernel).reshape(9, 1, 2, 4, 2)
    zero = (kernel == 0).all(axis=(2, 4))
    assert zero.sum() == 18
    assert (zero == (kernel == 0).any(axis=(2, 4))).all()
    model = keras_trim.prune(mlp(), sparsity_m_by_n=(2, 4), calibration_data=x.reshape(-1, 24))
    for layer in model.layers:
        groups = (values(layer.kernel) == 0).reshape(-1, 4, layer.units)
        assert (groups.sum(1) == 2).all()


def test_statistics_are_those_of_the_pruned_network(rng):
    x = correlated(rng, 64, 8, 8, 4)
    model = keras_trim.prune(
        convolutional(), 0.5, calibration_data=x, batch_size=24, update_statistics=True
    )
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Sequential))
    normalization = inner.get_layer("normalization")
    added = next(layer for layer in model.layers if isinstance(layer, layers.Add))
    until = keras.Model(model.inputs[0], added.output)
    given = keras.Model(inner.inputs[0], normalization.input)(until(x))
    given = values(given).reshape(-1, 12)
    np.testing.assert_allclose(values(normalization.moving_mean), given.mean(0), atol=1e-4)
    np.testing.assert_allclose(values(normalization.moving_variance), given.var(0), rtol=1e-3)
    kept = keras_trim.prune(
        convolutional(), 0.5, calibration_data=x, method="wanda", update_statistics=False
    )
    inner = next(layer for layer in kept.layers if isinstance(layer, keras.Sequential))
    assert not values(inner.get_layer("normalization").moving_mean).any()


def test_steps_give_what_whole_runs_give(rng, monkeypatch):
    """The short cut for functional models, and what it does when activations are too large."""
    from keras_trim.one_shot import replay

    x, kernels = correlated(rng, 48, 8, 8, 4), []
    for patch in ({}, {"_KEPT_BYTES": 0}, {"functional_of": lambda model: None}):
        keras.utils.set_random_seed(0)
        model = convolutional()
        with monkeypatch.context() as context:
            for name, value in patch.items():
                context.setattr(replay, name, value)
            keras_trim.prune(model, 0.6, calibration_data=x, batch_size=20)
        kernels.append([values(variable) for variable in model.weights])
    for other in kernels[1:]:
        for a, b in zip(kernels[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_what_examples_cannot_tell_is_pruned_by_magnitude_and_named(rng):
    model = recurrent()
    with pytest.warns(UserWarning, match=r"3 weights were pruned by magnitude.*recurrent_kernel"):
        keras_trim.prune(model, 0.5, calibration_data=correlated(rng, 48, 5, 6))
    rows = keras_trim.sparsity_report(model).rows
    assert all(row.zeros == row.size // 2 for row in rows if "kernel" in row.path)


def test_data_of_any_kind(rng):
    x = correlated(rng, 40, 24)
    kernels = []
    for data in (x, [x], ((x[i : i + 8], None) for i in range(0, 40, 8))):
        keras.utils.set_random_seed(0)
        model = keras_trim.prune(mlp(), 0.5, calibration_data=data, batch_size=16)
        kernels.append(values(model.layers[0].kernel))
    np.testing.assert_allclose(kernels[0], kernels[1])
    np.testing.assert_allclose(kernels[0], kernels[2], atol=1e-6)
    a, b = keras.Input((24,), name="a"), keras.Input((4,), name="b")
    two = keras.Model({"a": a, "b": b}, layers.Dense(3)(layers.Concatenate()([a, b])))
    keras_trim.prune(two, 0.5, calibration_data={"a": x, "b": x[:, :4]})
    assert np.count_nonzero(values(two.layers[-1].kernel)) == 42


def with_nan(rng):
    x = correlated(rng, 8, 24)
    x[3, 3] = np.nan
    return x


class Unreached(keras.Model):
    def __init__(self):
        super().__init__()
        self.used, self.spare = layers.Dense(3), layers.Dense(2)

    def build(self, input_shape):
        self.used.build(input_shape)
        self.spare.build(input_shape)

    def call(self, x):
        return self.used(x)


WRONG = {
    "empty": (
        lambda rng: np.zeros((0, 24)),
        {},
        "`calibration_data` must hold at least one example.*Received",
    ),
    "shape": (lambda rng: np.zeros((8, 23)), {}, "`calibration_data`.*must be of shape.*23"),
    "nan": (with_nan, {}, "`calibration_data` has NaN.*leave those.*Received: 1"),
    "method": (None, {"method": "best"}, "`method` must be one of 'reconstruct'.*'best'"),
    "no data": (lambda rng: None, {"method": "wanda"}, "pass a few hundred inputs.*Received"),
    "verbose": (None, {"verbose": "loud"}, "`verbose` must be.*loud"),
    "distribution": (None, {"distribution": "even"}, "`distribution` must be.*'even'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_after_an_error_the_model_is_as_it_was(name, rng):
    make, arguments, message = WRONG[name]
    model = mlp()
    before = model.get_weights()
    data = make(rng) if make else correlated(rng, 8, 24)
    with pytest.raises(ValueError, match=message):
        keras_trim.prune(model, 0.5, calibration_data=data, **arguments)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any("call" in layer.__dict__ for layer in model.layers)


def test_data_that_a_subclassed_model_does_not_take(rng):
    model = Subclassed()
    model(correlated(rng, 8, 4, 6))
    with pytest.raises(ValueError, match="cannot be called with a batch of `calibration_data`.*5"):
        keras_trim.prune(model, 0.5, calibration_data=correlated(rng, 8, 4, 5))


def test_a_layer_that_data_never_reach(rng):
    model = Unreached()
    x = correlated(rng, 8, 24)
    model(x)
    with pytest.raises(
        ValueError, match=r"never reaches some weights.*Received: no call of .*dense"
    ):
        keras_trim.prune(model, 0.5, calibration_data=x)
    assert values(model.used.kernel).all()


def test_an_error_within_a_layer_leaves_the_model_as_it_was(rng, monkeypatch):
    from keras_trim.one_shot import calibration

    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    model = mlp()
    before = model.get_weights()
    monkeypatch.setattr(calibration, "reconstruct", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        keras_trim.prune(model, 0.5, calibration_data=correlated(rng, 8, 24))
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any("call" in layer.__dict__ for layer in model.layers)


def branching():
    """A convolution without bias whose output goes to a normalization and past it."""
    x = inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, use_bias=False, name="both")(x)
    x = layers.Add()([layers.BatchNormalization(name="normalization")(x), x])
    x = layers.Conv2D(8, 1, use_bias=False, name="chain_1")(x)
    x = layers.Conv2D(8, 1, use_bias=False, name="chain_2")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def test_a_mean_is_corrected_only_where_nothing_else_reads_the_output(rng):
    x = correlated(rng, 32, 8, 8, 4) + 1
    model = branching()
    keras_trim.prune(model, 0.5, calibration_data=x, update_statistics=False)
    assert not values(model.get_layer("normalization").moving_mean).any()
    chain = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(8, 3, use_bias=False), layers.BatchNormalization()]
    )
    before = values(chain(x))
    keras_trim.prune(chain, 0.5, calibration_data=x, update_statistics=False)
    assert values(chain.layers[1].moving_mean).any()
    np.testing.assert_allclose(values(chain(x)).mean((0, 1, 2)), before.mean((0, 1, 2)), atol=1e-4)


def test_no_layer_is_told_that_it_trains(rng):
    told = []

    class Listening(layers.Layer):
        def call(self, x, training=True):
            told.append(training)
            return x

    x = inputs = keras.Input((24,))
    x = layers.Dropout(0.9)(layers.Dense(8)(x), training=True)
    model = keras.Model(inputs, layers.Dense(4)(Listening()(x)))
    x = correlated(rng, 32, 24)
    before = values(model(x, training=False))
    told.clear()
    keras_trim.prune(model, 0.0, calibration_data=x)
    assert told
    assert not any(told)
    np.testing.assert_allclose(values(model(x, training=False)), before, atol=1e-4)


def test_an_interrupt_while_weights_are_assigned(rng, monkeypatch):
    model, assign = mlp(), keras.Variable.assign
    before, calls = model.get_weights(), []

    def interrupted(self, value):
        calls.append(self)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return assign(self, value)

    monkeypatch.setattr(keras.Variable, "assign", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keras_trim.prune(model, 0.5, calibration_data=correlated(rng, 8, 24))
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_of_a_sparse_model_stay(method, rng):
    x = correlated(rng, 64, 24)
    model = keras_trim.prune(mlp(), sparsity_m_by_n="2:4", calibration_data=x)
    before = [values(layer.kernel) == 0 for layer in model.layers]
    sparser = {"first": 0.8, "second": 0.2, "out": 0.6}
    keras_trim.prune(model, distribution=sparser, calibration_data=x, method=method)
    for layer, was_zero in zip(model.layers, before, strict=True):
        kernel = values(layer.kernel)
        assert not kernel[was_zero].any()
        goal = max(sparser[layer.name], 0.5)
        assert np.count_nonzero(kernel == 0) == round(goal * kernel.size)


def test_a_convolution_of_integers(rng):
    if keras.backend.backend() != "jax":
        pytest.skip("only JAX has one")
    model = keras.Sequential([keras.Input((8, 8, 3), dtype="uint8"), layers.Conv2D(4, 3)])
    x = rng.integers(0, 255, (32, 8, 8, 3), "uint8")
    before = values(model(x))
    keras_trim.prune(model, 0.2, calibration_data=x)
    assert relative_error(model, x, before) < 0.05


def test_a_mean_is_corrected_only_along_the_axis_of_the_outputs(rng):
    """Steps and outputs are equally many, so shapes do not tell the axis."""
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Dense(8, use_bias=False),
            layers.BatchNormalization(axis=1),
        ]
    )
    x = correlated(rng, 64, 8, 8) + 1
    keras_trim.prune(model, 0.5, calibration_data=x, update_statistics=False)
    assert not values(model.layers[1].moving_mean).any()


@pytest.mark.parametrize("method", ["reconstruct", "wanda", "magnitude"])
def test_statistics_change_as_those_of_the_examples_do(method, rng):
    x = correlated(rng, 64, 24) + 1
    model = keras.Sequential(
        [
            keras.Input((24,)),
            layers.Dense(6, use_bias=False),
            layers.BatchNormalization(epsilon=1e-2),
            layers.Dense(4),
        ]
    )
    first, normalization, _ = model.layers
    kernel = values(first.kernel).copy()
    kernel[:, 0] = 0  # a dead channel
    first.kernel.assign(kernel)
    mean, variance = rng.standard_normal(6), 0.5 + rng.random(6)  # unlike those of the examples
    normalization.moving_mean.assign(mean)
    normalization.moving_variance.assign(variance)
    dense = x @ kernel
    arguments = {"update_statistics": "relative"} if method == "reconstruct" else {}
    keras_trim.prune(model, 0.5, calibration_data=x, method=method, batch_size=24, **arguments)
    sparse = x @ values(first.kernel)
    mean += sparse.mean(0) - dense.mean(0)
    variance = (variance + 1e-2) * (sparse.var(0) + 1e-2) / (dense.var(0) + 1e-2) - 1e-2
    np.testing.assert_allclose(values(normalization.moving_mean), mean, atol=1e-4)
    np.testing.assert_allclose(values(normalization.moving_variance), variance, rtol=1e-3)


def test_unknown_ways_to_update_statistics(rng):
    x = correlated(rng, 8, 24)
    for wrong in ("relativ", 1, ()):
        with pytest.raises(
            ValueError, match="update_statistics.*'relative', True, False.*Received"
        ):
            keras_trim.prune(mlp(), 0.5, calibration_data=x, update_statistics=wrong)


def test_statistics_of_one_example(rng):
    def made():
        return keras.Sequential(
            [keras.Input((24,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(4)]
        )

    x = correlated(rng, 1, 24)
    with pytest.raises(ValueError, match="one example.*no variance.*Received: one input of"):
        keras_trim.prune(made(), 0.5, calibration_data=x, update_statistics=True)
    model = keras_trim.prune(made(), 0.5, calibration_data=x)
    assert (values(model.layers[1].moving_variance) == 1).all()


@pytest.mark.parametrize("method", ["reconstruct", "sparsegpt", "wanda"])
def test_weights_that_are_not_finite(method, rng):
    model = mlp()
    kernel = values(model.layers[2].kernel).copy()
    kernel[0, 0] = np.nan
    model.layers[2].kernel.assign(kernel)
    with pytest.raises(ValueError, match="must be finite.*Received"):
        keras_trim.prune(model, 0.5, calibration_data=correlated(rng, 8, 24), method=method)


def test_numbers_among_the_inputs(rng):
    class Named(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, inputs):
            return self.dense(inputs["x"])

    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"x": x, "epoch": 3}

    x, model = correlated(rng, 32, 24), Named()
    model({"x": x})
    with pytest.raises(ValueError, match="cannot be called with a batch of `calibration_data`"):
        keras_trim.prune(model, 0.5, calibration_data=Data(workers=1))


def test_a_pattern_has_one_sparsity():
    with pytest.raises(ValueError, match="N:M pattern determines.*0.5.*Received: sparsity=0.9"):
        keras_trim.prune(mlp(), 0.9, sparsity_m_by_n=(2, 4))
    model = keras_trim.prune(mlp(), 0.5, sparsity_m_by_n=(2, 4))
    assert np.count_nonzero(values(model.layers[0].kernel)) == 12 * 32


def test_a_dataset_that_repeats_forever(rng):
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices(correlated(rng, 32, 24)).batch(8).repeat()
    with pytest.raises(ValueError, match="repeats forever: pass `dataset.take.*Received"):
        keras_trim.prune(mlp(), 0.5, calibration_data=data)
    model = keras_trim.prune(mlp(), 0.5, calibration_data=data.take(4))
    assert np.count_nonzero(values(model.layers[0].kernel)) == 12 * 32


@pytest.mark.parametrize("then", ["bias", "normalization"])
def test_the_inputs_of_a_wide_layer_are_divided(then, rng, monkeypatch):
    monkeypatch.setattr(dense_products, "WIDE", 64)
    monkeypatch.setattr(dense_products, "PART", 64)
    after = [layers.BatchNormalization()] if then == "normalization" else []
    wide = layers.Dense(6, use_bias=then == "bias", name="wide")
    model = keras.Sequential([keras.Input((96,)), wide, *after])
    x = 1 + correlated(rng, 200, 96)
    assert next(iter(products_of(model).values())).shape == (2, 48, 6)
    dense, kernel = model.predict(x, verbose=0), np.array(values(wide.kernel))
    errors = {}
    for method in ("reconstruct", "sparsegpt", "wanda", "magnitude"):
        wide.kernel.assign(kernel)
        keras_trim.prune(
            model, 0.75, calibration_data=x, method=method, update_statistics=False, verbose=0
        )
        assert np.count_nonzero(values(wide.kernel)) == 96 * 6 / 4
        errors[method] = np.square(model.predict(x, verbose=0) - dense).mean() / dense.var()
        if method == "reconstruct":
            np.testing.assert_allclose(
                model.predict(x, verbose=0).mean(0), dense.mean(0), atol=1e-4
            )
            if then == "bias":
                wide.bias.assign(np.zeros(6))
            else:
                after[0].moving_mean.assign(np.zeros(6))
    assert errors["reconstruct"] < errors["magnitude"] / 4
    assert errors["sparsegpt"] < errors["magnitude"]


def test_groups_that_cross_the_parts_of_a_wide_layer(rng, monkeypatch):
    monkeypatch.setattr(dense_products, "WIDE", 64)
    model = keras.Sequential([keras.Input((112,)), layers.Dense(6, name="wide")])
    x = rng.standard_normal((50, 112)).astype("float32")
    monkeypatch.setattr(dense_products, "PART", 64)
    with pytest.warns(UserWarning, match="groups that cross the parts of a wide layer"):
        keras_trim.prune(model, None, calibration_data=x, sparsity_m_by_n=(3, 6), verbose=0)
    kept = np.pad(values(model.layers[0].kernel) != 0, ((0, 2), (0, 0)))
    assert (kept.reshape(19, 6, 6).sum(1) <= 3).all()


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow warns when it traces"
)
def test_nothing_is_told_about_tracing():
    """In a process of its own, because TensorFlow warns only twice."""
    code = """
import keras, keras_trim
layers = [keras.layers.Dense(width) for width in range(8, 16)]
keras_trim.prune(keras.Sequential([keras.Input((8,)), *layers]), 0.5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "retracing" not in done.stderr


def test_a_model_that_is_being_pruned(data):
    """The masks of the training would turn 90 % zeros back into 50 %."""
    (x, y), mlp = data, make_mlp()
    keras_trim.prune_low_magnitude(mlp, keras_trim.ConstantSparsity(0.5, 0, frequency=1))
    mlp.compile("adam", "mse")
    mlp.fit(x, y, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    with pytest.raises(ValueError, match=r"strip_pruning\(model\)` first"):
        keras_trim.prune(mlp, 0.9)
    keras_trim.strip_pruning(mlp)
    keras_trim.prune(mlp, 0.9)


@pytest.mark.parametrize("kind", ["dtype", "rank"])
def test_a_nested_model_converts_its_input(kind, rng):
    if kind == "dtype":
        outer = keras.Input((6,), dtype="uint8")
        x = rng.integers(0, 255, (32, 6)).astype("uint8")
        nested = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu")])
    else:
        outer = keras.Input(())
        x = rng.standard_normal(32).astype("float32")
        nested = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "relu")])
    model = keras.Model(outer, nested(outer))
    model.predict(x, verbose=0)
    keras_trim.prune(model, 0.5, calibration_data=x)
    assert keras_trim.sparsity_report(model).sparsity == 0.5


def test_blocks_that_cross_groups_by_chance(rng):
    """As many 1x3 blocks fit 4 outputs as two groups of 2, but not the same ones."""
    model = keras.Sequential([keras.Input((4, 4, 8)), keras.layers.Conv2D(4, 3, groups=2)])
    x = rng.standard_normal((64, 4, 4, 8)).astype("float32")
    with pytest.warns(UserWarning, match="blocks that cross the groups"):
        keras_trim.prune(model, 0.5, block_size=(1, 3), calibration_data=x)
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel).reshape(-1, 4)
    whole = kernel[:, :3] == 0
    assert np.all(whole.all(1) | ~whole.any(1))
