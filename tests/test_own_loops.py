"""`PruningOptimizer` in loops that call its `apply` or `stateless_apply` themselves."""

import keras
import pytest
from conftest import make_mlp, step_alone, values
from keras import ops

import keras_trim
from keras_trim import ConstantSparsity, PruningOptimizer


def test_apply_without_variables_before_build():
    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    optimizer = PruningOptimizer("sgd")
    with pytest.raises(ValueError, match=r"`optimizer.build\(trainable_variables\)`"):
        optimizer.apply([ops.ones(v.shape) for v in model.trainable_variables])


def test_gradients_are_those_of_the_variables_it_was_built_with():
    """The inner optimizer knows the variables in another order."""
    stack = [keras.layers.Dense(4, use_bias=False) for _ in range(2)]
    model = keras.Sequential([keras.Input((4,)), *stack])
    keras_trim.prune_low_magnitude(model, ConstantSparsity(0.5, 0))
    first, second = model.trainable_variables
    first.assign(ops.zeros((4, 4)))
    second.assign(ops.zeros((4, 4)))
    sgd = keras.optimizers.SGD(1.0)
    sgd.build([second, first])
    optimizer = PruningOptimizer(sgd)
    optimizer.build([first, second])
    optimizer.apply([ops.full((4, 4), 2.0), ops.full((4, 4), 3.0)])
    assert (values(first).min(), values(second).min()) == (-2, -3)


def test_an_inner_optimizer_that_also_trained_other_weights(mlp):
    """They were frozen before pruning began, and have moving averages."""
    adam = keras.optimizers.Adam(use_ema=True)
    adam.build(mlp.trainable_variables)
    keras_trim.prune_low_magnitude(mlp, ConstantSparsity(0.5, 0))
    mlp.layers[0].trainable = False
    optimizer = PruningOptimizer(adam)
    optimizer.build(mlp.trainable_variables)
    step_alone(optimizer, mlp, 2)
    both = mlp.layers[1].kernel, adam._model_variables_moving_average[2]
    assert [int((values(each) == 0).sum()) for each in both] == [8, 8]


@pytest.mark.parametrize("are_passed", [True, False])
def test_marks_that_change_in_a_loop_of_ones_own(are_passed, mlp):
    keras_trim.prune_low_magnitude(mlp.layers[0], keras_trim.ConstantSparsity(0.5, 0))
    gradients = [ops.ones(v.shape) for v in mlp.trainable_variables]
    variables = mlp.trainable_variables if are_passed else None
    optimizer = PruningOptimizer("sgd")
    optimizer.build(mlp.trainable_variables)
    optimizer.apply(gradients, variables)
    for change in (
        lambda: keras_trim.prune_low_magnitude(mlp.layers[1]),
        lambda: keras_trim.strip_pruning(mlp.layers[0]),
    ):
        change()
        with pytest.raises(ValueError, match="has changed since .* a new `keras_trim.Pruning"):
            optimizer.apply(gradients, variables)
        optimizer = PruningOptimizer("sgd")
        optimizer.build(mlp.trainable_variables)
        optimizer.apply(gradients, variables)


class Wrong(keras_trim.PruningSchedule):
    def __call__(self, step):
        return True, 80.0

    def get_config(self):
        return {}


def test_a_users_schedule_with_a_wrong_sparsity():
    model = keras_trim.prune_low_magnitude(make_mlp(), Wrong())
    optimizer = PruningOptimizer("sgd")
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="sparsity of the schedule.*so 0.8 for 80 %"):
        step_alone(optimizer, model)
