"""Models that are converted as copies: in float32, stateless, with names in ASCII."""

import keras
import numpy as np
import pytest
from keras import layers
from models import make, randomize

from keras_trim.exporters.cases import call, make_cases
from keras_trim.exporters.preparation import prepare


class Block(layers.Layer):
    """Creates its own layers, under the policy that is set at that time."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units, name="inner")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_most_models_are_taken_as_they_are():
    model = make("cnn")
    prepared = prepare(model)
    assert prepared.model is model
    assert not prepared.is_copy
    assert prepared.notes == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_low_precision(policy):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6,), dtype="float32")
    hidden = layers.Dense(8, activation="relu")(inputs)
    hidden = layers.Lambda(lambda x: 2 * x)(layers.BatchNormalization()(Block(5)(hidden)))
    nested = keras.Sequential([keras.Input((5,)), layers.Dense(4)])
    model = keras.Model(inputs, nested(hidden) + keras.ops.cast(hidden[:, :4], "float32"))
    randomize(model)
    prepared = prepare(model)
    assert keras.config.dtype_policy().name == policy
    assert prepared.precision == policy.removeprefix("mixed_")
    found = list(prepared.model._flatten_layers())
    assert {layer.compute_dtype for layer in found} == {"float32"}
    assert {variable.dtype for variable in prepared.model.weights} == {"float32"}
    for new, old in zip(prepared.model.weights, model.weights, strict=True):
        old = keras.ops.convert_to_numpy(keras.ops.cast(old.value, "float32"))
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(new.value), old)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    (ours,), (theirs,) = call(prepared.model, [x]), call(model, [x])
    assert ours.dtype == "float32"
    np.testing.assert_allclose(ours, theirs.astype("float32"), atol=0.1 * np.abs(ours).max())
    assert (ours != theirs).any()  # ours is not rounded


def test_quantized_layers_in_low_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(3)])
    for layer in model.layers:
        layer.quantize("int8")
    prepared = prepare(model)
    assert {layer.compute_dtype for layer in prepared.model._flatten_layers()} == {"float32"}
    for new, old in zip(prepared.model.layers, model.layers, strict=True):
        assert new.quantization_mode == "int8"
        values = [keras.ops.convert_to_numpy(layer.kernel.value) for layer in (new, old)]
        np.testing.assert_array_equal(*values)
    make_cases(prepared)  # checks that it computes the same, up to rounding


def test_values_that_overflow_in_low_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[6e4], [6e4]])
    message = "a copy in float32 instead of float16.*differ by.*Check that no value overflows"
    with pytest.raises(ValueError, match=message):
        make_cases(prepare(model), np.full((3, 2), 2.0))


def test_states_are_reset_and_come_back():
    x = keras.Input(batch_shape=(2, 3, 4))
    model = keras.Model(x, layers.LSTM(3, stateful=True, name="memory")(x))
    once = np.ones((2, 3, 4), "float32")
    fresh = model.predict(once, verbose=0)
    second = model.predict(once, verbose=0)
    model.layers[1].reset_state()
    model.predict(once, verbose=0)
    prepared = prepare(model)
    assert not prepared.model.layers[1].stateful
    assert prepared.notes == [
        "the file keeps no states: each run starts as after `reset_state()`, in 'memory'"
    ]
    made = make_cases(prepared, once)
    np.testing.assert_allclose(made[0].outputs[0], fresh, rtol=1e-5)
    np.testing.assert_allclose(model.predict(once, verbose=0), second, rtol=1e-5)


def test_statistics_are_as_they_were():
    class BatchStatistics(layers.Layer):
        def __init__(self):
            super().__init__()
            self.normalize = layers.BatchNormalization()
            self.drop = layers.Dropout(0.5)

        def build(self, shape):
            self.normalize.build(shape)

        def call(self, x):
            return self.normalize(self.drop(x, training=True) * 0, training=True)

    x = keras.Input((3,))
    model = keras.Model(x, BatchStatistics()(x))
    before = [keras.ops.convert_to_numpy(variable.value) for variable in model.variables]
    make_cases(prepare(model))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable.value), value)


def test_names_in_any_script():
    x = keras.Input((3,), name="entrée")
    hidden = [layers.Dense(2, name=name)(x) for name in ("层 一", "层 二", "🙂", "dense")]
    model = keras.Model(
        x, [layers.Dense(1, name="выход")(y) for y in hidden[:1]] + hidden, name="模型"
    )
    randomize(model)
    prepared = prepare(model)
    names = [layer.name for layer in prepared.model.layers]
    assert all(name.isascii() for name in [*names, prepared.model.name])
    assert len(set(names)) == len(names)
    assert prepared.input_names == ["entrée"]
    assert prepared.output_names == ["выход", "层 一", "层 二", "🙂", "dense"]
    assert [prepared.name_of(layer) for layer in prepared.model.layers] == [
        layer.name for layer in model.layers
    ]
    make_cases(prepared)  # checks that it computes the same


def test_names_of_inputs_that_are_no_arguments():
    names = ["a-b", "a_b", "a_b_2", "self", "class", "fine"]
    inputs = [keras.Input((3,), name=name) for name in names]
    model = keras.Model(inputs, layers.Dense(1, name="if")(layers.Add()(inputs)))
    prepared = prepare(model)
    found = [tensor.name for tensor in prepared.model.inputs]
    assert found == ["a-b", "a_b_3", "a_b_2", "input_self", "input_class", "fine"]
    assert prepared.input_names == names
    assert prepared.output_names == ["if"]


def test_inputs_without_a_name_keep_that_of_the_model():
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = [keras.Input((3,)), keras.Input((3,), name="entrée")]
    model = keras.Model(inputs, layers.Add()(inputs))
    prepared = prepare(model)
    assert prepared.input_names == [inputs[0].name, "entrée"]
    assert prepared.argument_names == [inputs[0].name, "entr_e"]


class Plus(layers.Layer):
    """Adds a number that a word stands for."""

    numbers = {"in": 1.0, "class": 2.0}

    def __init__(self, word, **kwargs):
        super().__init__(**kwargs)
        self.word = word

    def call(self, x):
        return x + self.numbers.get(self.word, 0.0)

    def get_config(self):
        return {**super().get_config(), "word": self.word}


def test_arguments_that_are_names_of_inputs_stay():
    inputs = {name: keras.Input((1,), name=name) for name in Plus.numbers}
    model = keras.Model(inputs, [Plus(name)(x) for name, x in inputs.items()])
    prepared = prepare(model)
    assert prepared.is_copy
    assert [case.outputs for case in make_cases(prepared)]  # checks that it computes the same
    assert [layer.word for layer in prepared.model.layers[2:]] == ["in", "class"]


def test_a_configuration_that_makes_another_model():
    class Wordless(Plus):
        def get_config(self):
            return {**super().get_config(), "word": "none"}

    x = keras.Input((1,), name="in")
    message = "a copy from its configuration.*differ by.*each `get_config` returns all arguments"
    with pytest.raises(ValueError, match=message):
        make_cases(prepare(keras.Model(x, Wordless("in")(x))))


def test_a_configuration_that_does_not_make_the_model():
    class Forgetful(Block):
        def get_config(self):
            return layers.Layer.get_config(self)

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((2,)), Forgetful(3)])
    message = "computes in bfloat16, so it is converted as a copy.*`get_config`.*Received: model="
    with pytest.raises(ValueError, match=message):
        prepare(model)
