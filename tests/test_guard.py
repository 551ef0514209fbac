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
