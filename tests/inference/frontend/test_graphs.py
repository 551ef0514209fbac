"""Whole models: nested, shared, subclassed, with structures of inputs and outputs, and masks."""

import keras
import numpy as np
import pytest
from helpers import assert_same, assert_survives_a_file, kinds, numbers, randomize
from keras import layers, ops

from keras_trim.inference import Engine


def tower(name, width=4):
    return keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(width, 3, activation="relu"), layers.Flatten()],
        name=name,
    )


def test_nested_and_shared_models():
    a, b = keras.Input((6, 6, 3)), keras.Input((6, 6, 3))
    shared = tower("shared")
    inner = keras.Model(a, layers.Dense(3)(shared(a)), name="inner")
    dense = layers.Dense(3)
    model = keras.Model([a, b], [inner(a) + inner(b), dense(dense(inner(b)))])
    engine = assert_same(randomize(model), [numbers(2, 6, 6, 3), numbers(2, 6, 6, 3, seed=2)])
    names = [node.name for node in engine._graph.nodes]
    assert any(name.startswith("inner/shared/conv2d") for name in names)


def test_structures_of_inputs_and_outputs():
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,), name="a")}
    y = layers.Concatenate()([inputs["a"], inputs["b"]])
    outputs = {"sum": layers.Dense(2)(y), "parts": [y, layers.Dense(1)(inputs["b"])]}
    model = randomize(keras.Model(inputs, outputs))
    assert_same(model, {"a": numbers(5, 3), "b": numbers(5, 4)})


def test_one_output_in_a_list_or_tuple():
    x = keras.Input((4,))
    y = layers.Dense(2)(x)
    for outputs in ([y], (y,), {"y": y}, [[y]]):
        model = randomize(keras.Model(x, outputs))
        keras.tree.assert_same_structure(
            Engine(model, 1).predict(numbers(3, 4)), model.predict(numbers(3, 4), verbose=0)
        )
    z = layers.Dense(3)(keras.Model(x, [y])(x)[0])
    assert_same(randomize(keras.Model(x, z)), numbers(3, 4))


def test_an_output_that_is_an_input():
    x = keras.Input((4,))
    y = layers.ReLU()(x)
    assert_same(keras.Model(x, [x, y, y]), numbers(2, 4))


class Residual(layers.Layer):
    """Of Keras layers and operations alone."""

    def __init__(self, width):
        super().__init__()
        self.dense, self.norm = layers.Dense(width), layers.BatchNormalization()
        self.dropout = layers.Dropout(0.5)

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build(shape)
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x, training=None):
        y = self.dropout(self.norm(self.dense(x)), training=training)
        return x + ops.tanh(y) * self.scale if training is False else x


class Unknown(layers.Layer):
    """What only the backend can compute."""

    def call(self, x, scale=1.0):
        return ops.convert_to_tensor(np.float32(scale)) * ops.cumsum(x, axis=-1)


def test_layers_that_the_engine_has_never_seen():
    x = keras.Input((4,))
    model = randomize(keras.Model(x, Residual(4)(x)))
    engine = assert_same(model, numbers(3, 4))
    assert "Dense" in kinds(engine)
    model = keras.Model(x, Unknown()(layers.Dense(4)(x), scale=2.0))
    assert_same(model, numbers(3, 4), native=False)


def test_a_subclass_that_computes_something_else():
    class Doubled(layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    x = keras.Input((4,))
    assert_same(randomize(keras.Model(x, Doubled(3)(x))), numbers(2, 4), native=False)


class Standardized(layers.Conv2D):
    """Overrides a method that `call` of its parent uses, as Keras's documentation suggests."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel, axis=(0, 1, 2)))


class Doubled(layers.Add):
    def _merge_function(self, inputs):
        return 2 * super()._merge_function(inputs)


def test_subclasses_that_override_a_part_of_call():
    image = keras.Input((6, 6, 3))
    x = Doubled()([Standardized(4, 3)(image), layers.Conv2D(4, 3)(image)])
    data = np.random.default_rng(0).standard_normal((2, 6, 6, 3), "float32")
    assert_same(keras.Model(image, x), data, native=False)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Residual(4), Residual(4)]
        self.head = layers.Dense(2, activation="softmax")

    def call(self, inputs, training=None):
        x = ops.concatenate([inputs["a"], inputs["b"]], axis=-1)
        for block in self.blocks:
            x = block(x, training=training)
        return {"classes": self.head(x), "features": x}


def test_subclassed_model():
    model = Subclassed()
    x = {"a": numbers(5, 1), "b": numbers(5, 3)}
    model(x)
    counts = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    engine = assert_same(randomize(model), x)
    assert kinds(engine).count("Dense") == 3
    assert counts == [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    assert_same(model, {"a": numbers(9, 1), "b": numbers(9, 3)})


def test_subclassed_model_that_cannot_be_traced():
    class Branching(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            y = self.dense(x)
            return y if float(ops.convert_to_numpy(ops.sum(x))[()]) > 1e9 else -y

    model = Branching()
    model.run_eagerly = True
    if keras.backend.backend() == "torch":
        model(numbers(2, 4))
        engine = Engine(randomize(model))
        x = numbers(2, 4)
        np.testing.assert_allclose(engine(x), keras.ops.convert_to_numpy(model(x)), rtol=1e-5)
        assert kinds(engine) == ["KerasCall"]


def test_model_that_was_never_built():
    for model in (keras.Sequential([layers.Dense(3)]), Subclassed()):
        with pytest.raises(ValueError, match="never built"):
            Engine(model)


class WithAnother(keras.Model):
    """Returns something else with its outputs."""

    def __init__(self, other):
        super().__init__()
        self.dense, self.other = layers.Dense(2), other

    def call(self, x):
        return self.dense(x), self.other


def test_an_output_that_is_a_constant_array():
    model = WithAnother(np.arange(6, dtype="float32"))
    model(numbers(3, 4))
    engine = assert_same(model, numbers(3, 4), native=False)
    np.testing.assert_array_equal(engine(numbers(5, 4))[1], np.arange(6))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras itself refuses it there")
def test_an_output_that_is_none():
    model = WithAnother(None)
    model(numbers(3, 4))
    with pytest.raises(ValueError, match="outputs of a model must be.*with one that is None"):
        Engine(model)


def test_models_that_predict_by_other_means():
    def doubled(self, *arguments, **options):
        return 2 * super(type(self), self).predict_step(*arguments, **options)

    x = keras.Input((4,))
    for name in ("predict_step", "predict", "make_predict_function"):
        model = type("Own", (keras.Model,), {name: doubled})(x, layers.Dense(3)(x))
        with pytest.raises(ValueError, match=f"overrides `{name}`(?s:.*)class Own"):
            Engine(model)
        assert_same(keras.Model(model.input, model.output), numbers(2, 4))  # the cure
        outer = keras.Model(x, model(x))  # `predict` does not call that of a model within
        np.testing.assert_allclose(
            Engine(outer, 1).predict(numbers(2, 4)), outer.predict(numbers(2, 4)), rtol=1e-5
        )
    model = keras.Model(x, layers.Dense(3)(x))
    model.predict_step = doubled
    with pytest.raises(ValueError, match="overrides `predict_step`"):
        Engine(model)


def test_functional_subclass_with_a_call_of_its_own():
    class Negated(keras.Model):
        def call(self, x, training=None):
            return -super().call(x)

    x = keras.Input((4,))
    model = randomize(Negated(x, layers.Dense(3)(x)))
    model(numbers(2, 4))
    engine = Engine(model)
    expected = keras.ops.convert_to_numpy(model(numbers(2, 4)))
    np.testing.assert_allclose(engine(numbers(2, 4)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "reader",
    [
        lambda x: layers.MultiHeadAttention(2, 4)(x, x),
        lambda x: layers.MultiHeadAttention(2, 4)(x, x[:, :2], use_causal_mask=True),
        lambda x: layers.GlobalAveragePooling1D()(x),
        lambda x: layers.GlobalAveragePooling1D()(layers.Dense(3)(layers.ReLU()(x))),
        lambda x: layers.SimpleRNN(3)(x),
        lambda x: layers.Attention()([x, x]),
    ],
)
def test_masks_reach_the_layers_that_ask_for_them(reader):
    x = keras.Input((5,), dtype="int32")
    model = keras.Model(x, reader(layers.Embedding(7, 6, mask_zero=True)(x)))
    tokens = np.array([[1, 2, 0, 0, 0], [3, 0, 4, 0, 5], [1, 2, 3, 4, 5]], "int32")
    assert_same(randomize(model), tokens, native=False)


def test_masking():
    x = keras.Input((5, 3))
    y = layers.Masking(mask_value=1.0)(x)
    model = randomize(keras.Model(x, [y, layers.GlobalAveragePooling1D()(y)]))
    data = numbers(2, 5, 3)
    data[0, 2:], data[1, 1] = 1, 1
    assert_same(model, data, native=False)
    assert_same(keras.Model(x, y), data)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_masks_enter_nested_models():
    tokens = np.array([[1, 2, 0, 0, 0], [3, 0, 4, 0, 5]], "int32")
    y = keras.Input((5, 6))
    inner = keras.Model(y, layers.GlobalAveragePooling1D()(layers.Dense(3)(y)))
    x = keras.Input((5,), dtype="int32")
    model = keras.Model(x, inner(layers.Embedding(7, 6, mask_zero=True)(x)))
    assert_same(randomize(model), tokens, native=False)


@pytest.mark.parametrize(
    "settings",
    [{}, {"dropout": 0.1}, {"use_bias": False}, {"output_shape": 5}],
    ids=str,
)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_runs_without_keras(settings, causal):
    x, y = keras.Input((5, 6)), keras.Input((4, 6))
    layer = layers.MultiHeadAttention(2, 4, **settings)
    model = randomize(keras.Model([x, y], layer(x, y, use_causal_mask=causal)))
    assert_same(model, [numbers(3, 5, 6), numbers(3, 4, 6)])
    assert layer.get_config()["dropout"] == settings.get("dropout", 0.0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
def test_dtype_policies(policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32 unless it is told otherwise")
    keras.config.set_dtype_policy(policy)
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(6, 3, activation="relu")(x)
    y = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(y))
    model = randomize(keras.Model(x, layers.Dense(4)(y)))
    tolerance = {"mixed_bfloat16": 0.03, "float64": 1e-4}.get(policy, 0.004)
    assert_same(model, numbers(2, 8, 8, 3), tolerance)


def test_every_operation_survives_a_file(tmp_path):
    x, tokens = keras.Input((6, 8)), keras.Input((6,), dtype="int32")
    y = layers.Embedding(9, 8, mask_zero=True)(tokens) + x * np.arange(8, dtype="float32") / 3
    y = layers.MultiHeadAttention(2, 4)(y, y[:, ::2]) + x[:, :1]
    y = ops.einsum("abc,adc->abd", y, y) + ops.mean(y, -1)[:, None]
    y = layers.ZeroPadding1D(1)(layers.UpSampling1D(2)(ops.transpose(y, (0, 2, 1))))
    y = ops.cast(y > 0, "float32") + ops.softmax(y) + np.ones((14, 1), "float32")
    model = randomize(keras.Model([x, tokens], layers.LayerNormalization()(y)))
    data = [numbers(2, 6, 8), np.arange(12).reshape(2, 6).astype("int32") % 9]
    engine = assert_same(model, data)
    assert_survives_a_file(engine, data, tmp_path)
