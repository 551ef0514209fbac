"""Due updates happen, whatever became of the step at which they were due."""

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp, values, zeros

import keras_trim
from keras_trim import ConstantSparsity, PolynomialDecay

LINEAR = PolynomialDecay(0.0, 0.5, 0, 8, power=1, frequency=2)  # of 128 weights, 16 per update


@keras.saving.register_keras_serializable(package="tests.due")
class EverySecond(keras_trim.PruningSchedule):
    """Like `LINEAR`, but a schedule that is not known ahead."""

    def __call__(self, step):
        step = keras.ops.cast(step, "int32")
        sparsity = keras.ops.cast(keras.ops.minimum(step, 8), "float32") / 16
        return keras.ops.equal(step % 2, 0), sparsity

    def get_config(self):
        return {}


def compiled(schedule, optimizer="sgd", **kwargs):
    model = keras_trim.prune_low_magnitude(make_mlp(), schedule)
    model.compile(keras_trim.PruningOptimizer(optimizer), "mse", **kwargs)
    return model


def hidden_zeros(model):
    return int((values(model.layers[0].kernel) == 0).sum())


def train(model, data, steps):
    for _ in range(steps):
        model.train_on_batch(*data)
    return hidden_zeros(model)


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("schedule", [LINEAR, EverySecond()], ids=["stepped", "custom"])
def test_a_step_that_was_skipped_over(schedule, run_eagerly, data):
    model = compiled(schedule, run_eagerly=run_eagerly)
    assert train(model, data, 3) == 16
    model.optimizer.iterations.assign_add(2)  # past step 4: the update of 4 is due at step 6
    assert train(model, data, 1) == 48
    model.optimizer.iterations.assign_add(1)  # from 6 to 7
    model.optimizer.iterations.assign_add(5)  # past `end_step`
    assert train(model, data, 1) == 64


@pytest.mark.parametrize("schedule", [LINEAR, EverySecond()], ids=["stepped", "custom"])
def test_a_count_that_is_set_back(schedule, data):
    model = compiled(schedule)
    train(model, data, 8)
    mask = model.optimizer.pruned_weights[0].mask
    assert np.count_nonzero(values(mask)) == 64
    model.optimizer.iterations.assign(0)
    train(model, data, 1)
    assert values(mask).all()  # as at the beginning
    train(model, data, 3)
    assert np.count_nonzero(values(mask)) == 96


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_of_unknown_length_cancel_a_step(data):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow alone finds out within a step that data have ended")
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(data).filter(lambda *_: True)
    dataset = dataset.batch(16)  # 4 batches, so the fifth step is cancelled
    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 5, frequency=5))
    model.compile("adam", "mse")
    callbacks = [keras_trim.UpdatePruningStep()]
    model.fit(dataset, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
    assert zeros(model) == [64, 8]


def test_steps_that_a_loss_scaler_skips(data):
    """Steps that overflow do not count. The logs show the actual zeros."""
    keras.config.set_dtype_policy("mixed_float16")
    shown = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            model = self.model  # on JAX, this restores the state
            shown.append((hidden_zeros(model) / 128, logs.get("sparsity")))

    model = keras_trim.prune_low_magnitude(make_mlp().layers[0], LINEAR)
    model = keras.Sequential([keras.Input((8,)), model, keras.layers.Dense(1)])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**20)
    model.compile(optimizer, "mse")
    fit(model, data, epochs=6, callbacks=[Spy()])
    steps = int(model.optimizer.iterations)
    assert 0 < steps < 24, "nothing was skipped"
    assert hidden_zeros(model) == min(steps // 2 * 16, 64)
    assert all(logged in (None, there) for there, logged in shown), shown
    if keras.backend.backend() != "jax":  # JAX would have to wait for each step to tell
        assert None not in [logged for _, logged in shown]


def test_weights_and_step_restored_without_masks(data):
    """As with a checkpoint that holds no masks: they are made from the existing zeros."""

    def make():
        model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
        model.compile("adam", "mse")
        return model

    first, second = make(), make()
    fit(first, data)
    second.optimizer.build(second.trainable_variables)
    second.set_weights(first.get_weights())
    second.optimizer.iterations.assign(first.optimizer.iterations.value)
    before = values(second.layers[0].kernel) == 0
    fit(second, data)
    np.testing.assert_array_equal(values(second.layers[0].kernel) == 0, before)


def test_a_layer_that_is_frozen_later(data):
    model = keras_trim.prune_low_magnitude(make_mlp(), LINEAR)
    model.compile("adam", "mse")
    callbacks = [keras_trim.UpdatePruningStep()]
    with pytest.warns(UserWarning, match="ends at step .*, but this `fit`"):
        fit(model, data, epochs=1)
    optimizer = model.optimizer
    hidden, out = model.layers
    if keras.backend.backend() == "jax":  # Keras requires a new optimizer here: use a custom loop
        pytest.skip("with JAX, Keras itself wants another optimizer when a layer is frozen")
    before = values(hidden.kernel).copy()
    hidden.trainable = False
    model.compile(optimizer, "mse")
    with pytest.warns(UserWarning, match="1 weight .* is not trained.*hidden"):
        model.fit(*data, batch_size=16, epochs=1, verbose=0, callbacks=callbacks)
    np.testing.assert_array_equal(values(hidden.kernel), before)
    assert (values(out.kernel) == 0).sum() == 8
    hidden.trainable = True
    model.compile(optimizer, "mse")
    model.fit(*data, batch_size=16, epochs=1, verbose=0, callbacks=callbacks)
    assert zeros(model) == [64, 8]  # the updates that were due in the meantime
