import keras
import numpy as np
import pytest
from conftest import fit, make_mlp, step_alone, values

import keras_trim
from keras_trim import KeepZeros


def zeros_of(model):
    return [values(layer.kernel) == 0 for layer in model.layers]


def sparse_mlp():
    model = make_mlp()
    keras_trim.prune(model, distribution={"hidden": 0.7, "out": 0.25})
    return model


@pytest.mark.parametrize("is_eager", [False, True])
def test_zeros_stay_and_no_weight_joins_them(is_eager, data):
    model = sparse_mlp()
    before = zeros_of(model)
    keras_trim.prune_low_magnitude(model, KeepZeros())
    model.compile("adam", "mse", run_eagerly=is_eager)
    history = fit(model, data, epochs=3)
    for now, then in zip(zeros_of(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    zeros = sum(mask.sum() for mask in before) / sum(mask.size for mask in before)
    np.testing.assert_allclose(history.history["sparsity"], zeros)


def test_a_dense_weight_stays_dense(data):
    model = make_mlp()
    keras_trim.prune(model, distribution={"hidden": 0.5})
    keras_trim.prune_low_magnitude(model, KeepZeros())
    model.compile("adam", "mse")
    fit(model, data)
    assert values(model.layers[1].kernel).all()
    assert (values(model.layers[0].kernel) == 0).sum() == 64


def test_saved_while_training_it_goes_on(tmp_path, data):
    model = sparse_mlp()
    before = zeros_of(model)
    keras_trim.prune_low_magnitude(model, KeepZeros())
    model.compile("adam", "mse")
    fit(model, data, epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(loaded, data, epochs=1)
    for now, then in zip(zeros_of(loaded), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_patterns_are_not_asked_for(mlp):
    with pytest.raises(ValueError, match="`KeepZeros` keeps whatever zeros.*Received: "):
        keras_trim.prune_low_magnitude(mlp, KeepZeros(), sparsity_m_by_n=(2, 4))
    with pytest.raises(ValueError, match="`KeepZeros` keeps whatever zeros.*Received: "):
        keras_trim.prune_low_magnitude(mlp, KeepZeros(), block_size=(2, 2))


def test_weights_that_are_loaded_after_the_model_is_compiled(tmp_path, data):
    sparse_mlp().save_weights(tmp_path / "sparse.weights.h5")
    model = make_mlp()
    keras_trim.prune_low_magnitude(model, KeepZeros())
    model.compile("adam", "mse")
    with pytest.warns(UserWarning, match="masks and momenta start afresh|optimizer"):
        model.load_weights(tmp_path / "sparse.weights.h5")
    before = zeros_of(model)
    assert before[0].sum() == 90
    fit(model, data)
    for now, then in zip(zeros_of(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_weights_that_are_set_after_the_optimizer_is_built(data):
    sparse, model = sparse_mlp(), make_mlp()
    keras_trim.prune_low_magnitude(model, KeepZeros())
    optimizer = keras_trim.PruningOptimizer("adam")
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "mse")
    model.set_weights(sparse.get_weights())
    fit(model, data)
    for now, then in zip(zeros_of(model), zeros_of(sparse), strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [None, 2])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_weights_that_are_loaded_before_a_loop_of_ones_own(accumulated, is_scaled):
    sparse, model = sparse_mlp(), make_mlp()
    keras_trim.prune_low_magnitude(model, KeepZeros())
    adam = keras.optimizers.Adam(gradient_accumulation_steps=accumulated)
    optimizer = keras_trim.PruningOptimizer(adam)
    if is_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    model.set_weights(sparse.get_weights())
    step_alone(optimizer, model, 3)
    for now, then in zip(zeros_of(model), zeros_of(sparse), strict=True):
        np.testing.assert_array_equal(now, then)
    assert not np.array_equal(model.get_weights()[0], sparse.get_weights()[0])
    model.layers[0].kernel.assign(np.ones((8, 16)))  # later, zeros stay those of the beginning
    step_alone(optimizer, model)
    np.testing.assert_array_equal(zeros_of(model)[0], zeros_of(sparse)[0])


def test_zeros_that_came_in_the_middle_of_training(data):
    model = sparse_mlp()
    keras_trim.prune_low_magnitude(model, KeepZeros())
    model.compile("adam", "mse")
    fit(model, data)
    model.layers[0].kernel.assign(values(model.layers[0].kernel) * (np.arange(16) > 7))
    with pytest.warns(UserWarning, match="1 weight is sparser already .* compile it again"):
        fit(model, data)
