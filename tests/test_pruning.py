import keras
import numpy as np
import pytest
from conftest import fit, make_mlp, values, zeros

import keras_trim
from keras_trim import ConstantSparsity

HALF = ConstantSparsity(0.5, 0)


class Subclassed(keras.Model):
    """A model with nested layers that are built on its first call."""

    def __init__(self):
        super().__init__()
        self.blocks = [keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(8)])]
        self.head = keras.layers.Dense(1)

    def call(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def functional():
    inputs = keras.Input((8,))
    shared = keras.layers.Dense(8, name="shared")
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)], name="inner")
    x = shared(shared(inputs))
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()([x, inner(inputs)]))
    return keras.Model(inputs, outputs)


def deferred():
    return keras.Sequential([keras.layers.Dense(16), keras.layers.Dense(1)])


def sequence(*layers):
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Reshape((4, 2)), *layers, keras.layers.Dense(1)]
    )


MODELS = {
    "sequential": (make_mlp, [64, 8]),
    "sequential, not built": (deferred, [64, 8]),
    "functional, shared and nested": (functional, [32, 16, 6]),
    "subclassed": (Subclassed, [4, 32, 32]),
    "bidirectional": (
        lambda: sequence(keras.layers.Bidirectional(keras.layers.LSTM(4))),
        [16, 32, 16, 32, 4],
    ),
    "time distributed": (
        lambda: sequence(
            keras.layers.TimeDistributed(keras.layers.Dense(4)), keras.layers.Flatten()
        ),
        [4, 8],
    ),
    "stacked cells": (
        lambda: sequence(keras.layers.RNN([keras.layers.LSTMCell(4), keras.layers.GRUCell(2)])),
        [16, 32, 12, 6, 1],
    ),
    "attention": (
        lambda: sequence(Attention(), keras.layers.Flatten()),
        [8, 8, 8, 8, 4],
    ),
}


class Attention(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(2, 4)

    def call(self, x):
        return self.attention(x, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_any_model(name, data):
    make, expected = MODELS[name]
    model = make()
    assert keras_trim.prune_low_magnitude(model, HALF) is model
    model.compile("adam", "mse")
    fit(model, data)
    assert sorted(zeros(model)) == sorted(expected)
    layers = model._flatten_layers()
    assert keras_trim.strip_pruning(model) is model
    assert model._flatten_layers() == layers


class WithSpare(keras.Model):
    """A model with a layer that is never called, and so never has weights."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(1)
        self.spare = keras.layers.Dense(4)

    def build(self, input_shape):
        self.out.build(input_shape)

    def call(self, x):
        return self.out(x)


class WithSpareAndHidden(WithSpare):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        super().build(input_shape)

    def call(self, x):
        return super().call(self.hidden(x))


@pytest.mark.parametrize("is_called", [False, True])
def test_a_layer_that_is_never_called(is_called, data):
    model = WithSpare()
    if is_called:
        model(data[0])
    keras_trim.prune_low_magnitude(model, HALF)
    model.compile("adam", "mse")
    fit(model, data)
    assert zeros(model) == [4]
    keras_trim.strip_pruning(model)
    keras_trim.prune(model, 0.75)
    assert np.count_nonzero(values(model.out.kernel)) == 2


def test_a_layer_marked_before_it_is_built(data):
    layer = keras_trim.prune_low_magnitude(keras.layers.Dense(16), HALF)
    model = keras.Sequential([keras.Input((8,)), layer, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    fit(model, data)
    assert zeros(model) == [64]


def test_a_list_of_layers(mlp, data):
    layers = keras_trim.prune_low_magnitude(mlp.layers, HALF)
    assert layers is mlp.layers or layers == mlp.layers
    mlp.compile("adam", "mse")
    fit(mlp, data)
    assert zeros(mlp) == [64, 8]


@pytest.mark.parametrize("layer_first", [True, False])
def test_the_innermost_mark_counts(layer_first, mlp, data):
    calls = [
        lambda: keras_trim.prune_low_magnitude(mlp.layers[0], ConstantSparsity(0.25, 0)),
        lambda: keras_trim.prune_low_magnitude(mlp, HALF),
    ]
    for call in calls if layer_first else reversed(calls):
        call()
    mlp.compile("adam", "mse")
    fit(mlp, data)
    assert zeros(mlp) == [32, 8]


def test_marking_again_replaces(mlp, data):
    keras_trim.prune_low_magnitude(mlp, ConstantSparsity(0.25, 0))
    keras_trim.prune_low_magnitude(mlp, HALF)
    mlp.compile("adam", "mse")
    fit(mlp, data)
    assert zeros(mlp) == [64, 8]
    with pytest.raises(ValueError, match=r"being pruned already.*`keras_trim.strip_pruning"):
        keras_trim.prune_low_magnitude(mlp, HALF)
    keras_trim.strip_pruning(mlp)
    keras_trim.prune_low_magnitude(mlp, ConstantSparsity(0.75, 9))
    fit(mlp, data)
    assert zeros(mlp) == [96, 12]


def test_a_model_that_was_trained_before_goes_on(mlp, data):
    mlp.compile("adam", "mse")
    mlp.fit(*data, batch_size=16, verbose=0)
    momentum = values(mlp.optimizer.variables[2]).copy()
    keras_trim.prune_low_magnitude(mlp, ConstantSparsity(0.5, 5, frequency=1))
    callback = keras_trim.UpdatePruningStep()
    callback.set_model(mlp)
    inner = mlp.optimizer.inner_optimizer
    np.testing.assert_array_equal(values(inner.variables[2]), momentum)
    fit(mlp, data)
    assert int(values(mlp.optimizer.iterations)) == 12
    assert zeros(mlp) == [64, 8]


@pytest.mark.filterwarnings("ignore:2 weights were pruned")
def test_strip_pruning_leaves_a_plain_model(mlp, data):
    optimizer = keras.optimizers.Adam()
    keras_trim.prune_low_magnitude(mlp, HALF)
    mlp.compile(optimizer, "mse", metrics=["mae"])
    fit(mlp, data)
    predictions = mlp.predict(data[0], verbose=0)
    keras_trim.strip_pruning(mlp)
    assert mlp.optimizer is optimizer
    np.testing.assert_array_equal(mlp.predict(data[0], verbose=0), predictions)
    report = keras_trim.sparsity_report(mlp)
    assert not report.is_marked
    assert [row.pattern for row in report.pruned_rows] == [None, None]
    mlp.fit(*data, verbose=0)
    assert values(mlp.layers[0].kernel).all()


@pytest.mark.filterwarnings("ignore:Pruning was stripped before 1 weight reached its target")
@pytest.mark.parametrize("kind", ["built", "not built", "with a layer that is never built"])
def test_strip_pruning_of_a_layer_in_a_marked_model(kind, data):
    model = {"built": make_mlp, "not built": deferred}.get(kind, WithSpareAndHidden)()
    if isinstance(model, WithSpare):
        model(data[0])
    keras_trim.prune_low_magnitude(model, HALF)
    layer = getattr(model, "out", model.layers[-1])
    keras_trim.strip_pruning(layer)
    model.compile("sgd", "mse")
    fit(model, data)
    assert values(layer.kernel).all()
    reasons = {row.path: row.reason for row in keras_trim.sparsity_report(model).rows}
    assert "strip_pruning" in reasons.pop(layer.kernel.path)
    assert None in reasons.values()
    keras_trim.strip_pruning(model)
    keras_trim.prune_low_magnitude(model, HALF)
    model.compile("sgd", "mse")
    fit(model, data)
    assert not values(layer.kernel).all()


def test_strip_pruning_in_mixed_precision(data):
    keras.config.set_dtype_policy("mixed_float16")
    model = keras_trim.prune_low_magnitude(make_mlp(), HALF)
    optimizer = keras.optimizers.Adam()
    model.compile(optimizer, "mse")
    fit(model, data, epochs=4)
    keras_trim.strip_pruning(model)
    assert model.optimizer.inner_optimizer is optimizer


def test_prune_scope_is_a_context():
    with keras_trim.prune_scope():
        pass


@pytest.mark.parametrize("wrong", ["model", None, [keras.layers.Dense(1), "layer"]])
def test_what_can_be_marked(wrong):
    with pytest.raises(ValueError, match="`to_prune` must be a Keras model or layer.*Received: "):
        keras_trim.prune_low_magnitude(wrong)
    with pytest.raises(ValueError, match="`model` must be a Keras model or layer.*Received: "):
        keras_trim.strip_pruning(wrong)


def test_wrong_arguments(mlp):
    with pytest.raises(ValueError, match="`pruning_schedule` must be.*Received: .*0.5"):
        keras_trim.prune_low_magnitude(mlp, 0.5)
    with pytest.raises(ValueError, match="`pruning_policy` must be an instance.*Received: "):
        keras_trim.prune_low_magnitude(mlp, pruning_policy=keras_trim.PruningPolicy)
    with pytest.raises(ValueError, match="`block_size` must not be larger.*hidden/kernel"):
        keras_trim.prune_low_magnitude(mlp, block_size=(16, 1))
    with pytest.raises(ValueError, match="`to_prune` must hold at least one layer"):
        keras_trim.prune_low_magnitude([])
    with pytest.raises(ValueError, match="`sparsity` is the fraction.*Received: sparsity=80"):
        keras_trim.prune(mlp, 80)
    with pytest.raises(ValueError, match="`pruning_policy` must be an instance.*Received: "):
        keras_trim.prune(mlp, 0.5, pruning_policy="dense")
    with pytest.raises(ValueError, match="`inner_optimizer` must be a Keras optimizer.*None"):
        keras_trim.PruningOptimizer(None)

    class Open(keras_trim.PruningSchedule):
        def __call__(self, step):
            return True, 0.5

        def get_config(self):
            return {}

    with pytest.raises(ValueError, match="an attribute `final_sparsity`"):
        keras_trim.prune_low_magnitude(mlp, Open(), sparsity_m_by_n=(2, 4))
    mlp.compile("sgd", "mse")
    mlp.fit(np.zeros((4, 8)), np.zeros((4, 1)), verbose=0)  # nothing was marked half-way


def test_a_model_in_which_nothing_is_prunable():
    model = keras.Sequential([keras.Input((8,)), keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="Nothing in it can be pruned.*rank 1"):
        keras_trim.prune_low_magnitude(model)
    with pytest.raises(ValueError, match="Nothing in it can be pruned.*model="):
        keras_trim.prune(model, 0.5)
    with pytest.warns(UserWarning, match="Nothing in it can be pruned"):
        keras_trim.prune_low_magnitude(model.layers[0])


def test_n_m_leaves_out_what_it_does_not_fit(data):
    model = keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            keras.layers.Embedding(10, 2),
            keras.layers.Conv1D(4, 2),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1),
        ]
    )
    told = r"not pruned at all\. Layer '.*conv1d.*' \(16 weights\): 2 input channels: 2:4 keeps"
    with pytest.warns(UserWarning, match=told):
        keras_trim.prune_low_magnitude(model, sparsity_m_by_n=(2, 4))
    reasons = [row.reason for row in keras_trim.sparsity_report(model).rows]
    assert "a table has none" in reasons[0]
    assert reasons[1] == "2 input channels: 2:4 keeps them all"
    assert reasons[3] is None


def test_frozen_layers_are_named(mlp, data):
    mlp.layers[0].trainable = False
    with pytest.warns(UserWarning, match="1 weight .* is frozen.*hidden/kernel.*trainable"):
        keras_trim.prune_low_magnitude(mlp, HALF)
    mlp.compile("adam", "mse")
    with pytest.warns(UserWarning, match="1 weight .* is not trained.*hidden/kernel"):
        fit(mlp, data)
    assert zeros(mlp) == [8]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8])
def test_prune_in_one_shot(sparsity, rng):
    model = functional()
    model.get_layer("shared").trainable = False  # it is pruned anyway
    before = [values(variable).copy() for variable in model.variables]
    assert keras_trim.prune(model, sparsity) is model
    for variable, old in zip(model.variables, before, strict=True):
        new = values(variable)
        if variable.name == "kernel":
            assert (new == 0).sum() == min(round(new.size * sparsity), new.size - 1)
            assert np.array_equal(new[new != 0], old[new != 0])
            pruned, kept = np.abs(old[new == 0]), np.abs(old[new != 0])
            assert pruned.max(initial=0) <= kept.min()
        else:
            np.testing.assert_array_equal(new, old)


def test_prune_in_one_shot_by_pattern(mlp):
    keras_trim.prune(mlp, None, sparsity_m_by_n=(3, 4))
    for layer in mlp.layers:
        groups = values(layer.kernel).reshape(-1, 4, layer.kernel.shape[1])
        assert ((groups != 0).sum(1) == 1).all()
    with pytest.raises(ValueError, match="no weights yet.*Received: "):
        keras_trim.prune(deferred(), 0.5)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        keras_trim.prune(mlp, 80)
