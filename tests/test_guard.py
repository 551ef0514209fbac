import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import make_mlp, values
from keras import ops

import keras_trim

CURE = "UpdatePruningStep.*PruningOptimizer"


def snapshot(model):
    return [values(variable).copy() for variable in model.variables]


def assert_unchanged(model, before):
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(values(variable), old)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_fit_without_the_callback_raises_before_any_weight_moves(mlp, data, run_eagerly):
    keras_trim.prune_low_magnitude(mlp)
    mlp.compile("sgd", "mse", run_eagerly=run_eagerly)
    before = snapshot(mlp)
    with pytest.raises(ValueError, match=CURE):
        mlp.fit(*data, verbose=0)
    assert_unchanged(mlp, before)
    with pytest.raises(ValueError, match=CURE):
        mlp.train_on_batch(*data)
    assert_unchanged(mlp, before)
    # The same model trains once the cure is applied.
    mlp.fit(*data, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    assert np.count_nonzero(values(mlp.layers[0].kernel) == 0) == 64


def test_a_model_that_only_contains_a_marked_layer(data):
    layer = keras_trim.prune_low_magnitude(keras.layers.Dense(4))
    inner = keras.Sequential([layer, keras.layers.Dense(1)])
    model = keras.Sequential([keras.Input((8,)), inner])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=CURE):
        model.fit(*data, verbose=0)


def test_a_model_without_weights_yet(data):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    model = keras_trim.prune_low_magnitude(Model())
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=CURE):
        model.fit(*data, verbose=0)
    assert values(model.dense.kernel).all()


def test_an_optimizer_in_a_loop_of_ones_own(mlp):
    keras_trim.prune_low_magnitude(mlp)
    optimizer = keras.optimizers.Adam()
    optimizer.build(mlp.trainable_variables)
    before = snapshot(mlp)
    gradients = [ops.ones(variable.shape) for variable in mlp.trainable_variables]
    with pytest.raises(ValueError, match=CURE):
        optimizer.apply(gradients, mlp.trainable_variables)
    with pytest.raises(ValueError, match=CURE):
        optimizer.apply_gradients(zip(gradients, mlp.trainable_variables, strict=True))
    assert_unchanged(mlp, before)


@pytest.mark.usefixtures("one_backend")
def test_a_model_that_was_loaded(mlp, data, tmp_path):
    """Runs in its own process, where only loading has marked anything."""
    keras_trim.prune_low_magnitude(mlp)
    mlp.compile("sgd", "mse")
    mlp.fit(*data, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    mlp.save(tmp_path / "model.keras")
    code = """
import sys, keras, keras_trim, numpy as np
model = keras.models.load_model(sys.argv[1])
model.compile("sgd", "mse")
try:
    model.fit(np.ones((4, 8)), np.ones((4, 1)), verbose=0)
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.keras"], capture_output=True, text=True
    )
    assert "nothing would prune it" in done.stdout, done.stderr


def test_a_train_step_of_ones_own_with_its_own_optimizer(mlp, data):
    """As in generative adversarial networks: `model.optimizer` is not the only optimizer."""
    if keras.backend.backend() == "jax":
        pytest.skip("on JAX a train step is given the state of `model.optimizer` only")

    class Model(keras.Sequential):
        def train_step(self, data):
            x, y = data
            if keras.backend.backend() == "torch":
                self.zero_grad()
                loss = ops.mean((self(x) - y) ** 2)
                loss.backward()
                gradients = [v.value.grad for v in self.trainable_variables]
            else:
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    loss = ops.mean((self(x) - y) ** 2)
                gradients = tape.gradient(loss, self.trainable_variables)
            self.own_optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    model = Model(mlp.layers)
    model.build((None, 8))
    keras_trim.prune_low_magnitude(model)
    model.compile("sgd", "mse")
    model.own_optimizer = keras_trim.PruningOptimizer("sgd")
    model.own_optimizer.build(model.trainable_variables)
    model.fit(*data, verbose=0)
    assert np.count_nonzero(values(model.layers[0].kernel) == 0) == 64
    model.own_optimizer = keras.optimizers.SGD()
    model.own_optimizer.build(model.trainable_variables)
    model.train_function = None
    with pytest.raises(ValueError, match=CURE):
        model.fit(*data, verbose=0)


@pytest.mark.filterwarnings("ignore:1 weight was pruned")
def test_marks_that_change_while_a_model_is_pruned(mlp, data):
    keras_trim.prune_low_magnitude(mlp.layers[0])
    mlp.compile("sgd", "mse")
    callbacks = [keras_trim.UpdatePruningStep()]
    mlp.fit(*data, verbose=0, callbacks=callbacks)
    for change in (
        lambda: keras_trim.prune_low_magnitude(mlp.layers[0]),
        lambda: keras_trim.prune_low_magnitude(mlp.layers[1]),
        lambda: keras_trim.strip_pruning(mlp.layers[0]),
    ):
        change()
        with pytest.raises(ValueError, match=r"has changed since.*`model.compile\(\)` again"):
            mlp.fit(*data, verbose=0, callbacks=callbacks)
        mlp.compile("sgd", "mse")
        mlp.fit(*data, verbose=0, callbacks=callbacks)


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method")
def test_saving_what_will_not_load(mlp, data, tmp_path):
    """Quantized weights are new variables, but the optimizer prunes the old ones."""
    keras_trim.prune_low_magnitude(mlp)
    mlp.compile("adam", "mse")
    mlp.fit(*data, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    mlp.quantize("int8")
    with pytest.warns(UserWarning, match="2 weights .*quantized.*strip_pruning"):
        mlp.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="2 weights .*hidden/kernel.*compile=False.*Received"):
        keras.models.load_model(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras", compile=False)


def test_saving_a_whole_model_as_hdf5(mlp, data, tmp_path):
    keras_trim.prune_low_magnitude(mlp)
    mlp.compile("sgd", "mse")
    mlp.fit(*data, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    tf_keras = keras._tf_keras.keras  # what TensorFlow calls `tf.keras`
    savers = keras.saving.save_model, keras.models.save_model, tf_keras.models.save_model
    for save in (keras.Model.save, *savers):
        for name in (tmp_path / "model.h5", str(tmp_path / "model.hdf5")):
            with pytest.warns(UserWarning, match=r"load as a plain model.*`\.keras`.*filepath="):
                save(mlp, name)
            save(mlp, name, include_optimizer=False)
    mlp.save(filepath=tmp_path / "model.keras")
    mlp.save_weights(tmp_path / "model.weights.h5")
    keras_trim.strip_pruning(mlp).save(tmp_path / "model.h5")
    with pytest.warns(UserWarning, match="load as a plain model"):  # marks alone, too
        keras_trim.prune_low_magnitude(make_mlp()).save(tmp_path / "model.h5")


def test_other_models_are_left_alone(mlp, data):
    keras_trim.prune_low_magnitude(mlp)
    other = make_mlp()
    other.compile("sgd", "mse")
    other.fit(*data, verbose=0)


def test_stripped_models_train_densely(mlp, data):
    keras_trim.prune_low_magnitude(mlp)
    with pytest.warns(UserWarning, match="before 2 weights reached their target sparsity"):
        keras_trim.strip_pruning(mlp)
    mlp.compile("sgd", "mse")
    mlp.fit(*data, verbose=0)


def stripped(model, data):
    keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5, 0, frequency=1))
    model.compile("sgd", "mse")
    model.fit(*data, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    return keras_trim.strip_pruning(model)


def pruned_at_once(model, data):
    keras_trim.prune(model, 0.5)
    model.compile("sgd", "mse")
    return model


LOSES_ZEROS = r"1 weight was pruned.*hidden/kernel.*KeepZeros"


@pytest.mark.parametrize("prune", [stripped, pruned_at_once])
def test_training_on_without_marks_warns_once(mlp, data, prune):
    model = prune(mlp, data)
    model.layers[1].trainable = False
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=LOSES_ZEROS):
        model.fit(*data, verbose=0)
    model.fit(*data, verbose=0)


@pytest.mark.parametrize("prune", [stripped, pruned_at_once])
def test_a_pruned_model_inside_another_one(mlp, data, prune):
    outer = keras.Sequential([prune(mlp, data), keras.layers.Dense(1)])
    outer.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="2 weights were pruned"):
        outer.train_on_batch(*data)


@pytest.mark.parametrize("prune", [stripped, pruned_at_once])
def test_training_that_keeps_the_zeros_does_not_warn(mlp, data, prune):
    model = keras_trim.prune_low_magnitude(prune(mlp, data), keras_trim.KeepZeros())
    model.compile("sgd", "mse")
    model.fit(*data, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    assert np.count_nonzero(values(mlp.layers[0].kernel) == 0) == 64


def test_a_frozen_pruned_model_warns_when_it_is_trained_again(mlp, data):
    base = pruned_at_once(mlp, data)
    base.trainable = False
    outer = keras.Sequential([*base.layers, keras.layers.Dense(1)])
    outer.compile("sgd", "mse")
    outer.fit(*data, verbose=0)
    base.trainable = True
    outer.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="2 weights were pruned"):
        outer.fit(*data, verbose=0)


def test_a_model_that_never_was_pruned_does_not_warn(data):
    model = keras.Sequential([keras.layers.Dense(4, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    keras_trim.strip_pruning(model).fit(*data, verbose=0)


def test_lora_on_a_pruned_base_does_not_warn(mlp, data):
    model = pruned_at_once(mlp, data)
    for layer in model.layers:
        layer.enable_lora(2)
    model.compile("sgd", "mse")
    model.fit(*data, verbose=0)


class OwnStep(keras.Sequential):
    """A model with a custom training step, which is Keras's."""

    def train_step(self, *args):
        return super().train_step(*args)


def test_marks_that_change_under_a_custom_training_step(data):
    model = OwnStep(make_mlp().layers)
    keras_trim.prune_low_magnitude(model.layers[0])
    model.compile("sgd", "mse")
    callbacks = [keras_trim.UpdatePruningStep()]
    model.fit(*data, verbose=0, callbacks=callbacks)
    keras_trim.prune_low_magnitude(model.layers[1])
    with pytest.raises(ValueError, match="has changed since"):
        model.fit(*data, verbose=0, callbacks=callbacks)
