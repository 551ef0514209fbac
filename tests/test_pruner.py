"""`Pruner`: masks after steps of optimizers outside Keras."""

from copy import deepcopy

import keras
import numpy as np
import oracle
import pytest
from conftest import make_mlp, values, zeros
from keras import ops
from test_persistence import WAYS

import keras_trim

BACKEND = keras.backend.backend()
needs_jax = pytest.mark.skipif(BACKEND != "jax", reason="stateless steps")
needs_torch = pytest.mark.skipif(BACKEND != "torch", reason="hooks of torch.optim")


@pytest.fixture
def model():
    model = make_mlp()
    schedule = keras_trim.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=6, frequency=2)
    return keras_trim.prune_low_magnitude(model, schedule)


def move(model, step):
    """Moves weights as an optimizer might, the same way on every backend."""
    rng = np.random.default_rng(step)
    for variable in model.trainable_variables:
        noise = rng.standard_normal(variable.shape) * 0.1
        variable.assign(values(variable) + noise.astype("float32"))


def test_follows_the_schedule(model):
    pruner = keras_trim.Pruner(model)
    found = []
    for step in range(8):
        move(model, step)
        pruner.apply()
        found.append(zeros(model))
    # Updates at steps 0 (in the first step), 2, 4, 6.
    expected = []
    for step in (0, 2, 2, 4, 4, 6, 6, 6):
        sparsity = 0.5 - 0.5 * (1 - step / 6) ** 3
        expected.append([round(128 * sparsity), round(16 * sparsity)])
    assert found == [expected[0], *expected[1:]]
    assert int(values(pruner.iterations)) == 8


def test_masks_are_exact(model):
    pruner = keras_trim.Pruner(model)
    for step in range(6):
        move(model, step)
        if step == 5:
            before = [values(layer.kernel).copy() for layer in model.layers]
        pruner.apply()
    for kernel, weight, count in zip(before, pruner.pruned_weights, (64, 8), strict=True):
        np.testing.assert_array_equal(values(weight.mask), oracle.keep_largest(kernel, count))


def test_resumed_equals_uninterrupted(model):
    pruner = keras_trim.Pruner(model)
    for step in range(3):
        move(model, step)
        pruner.apply()
    state, weights = pruner.state_dict(), model.get_weights()
    for step in range(3, 6):
        move(model, step)
        pruner.apply()
    expected = model.get_weights()
    model.set_weights(weights)
    other = keras_trim.Pruner(model)
    other.load_state_dict(state)
    for step in range(3, 6):
        move(model, step)
        other.apply()
    for mine, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="`state` must be what `state_dict` returned"):
        other.load_state_dict({"step": 0})


def test_state_goes_through_the_files_of_each_backend(model, tmp_path):
    pruner = keras_trim.Pruner(model)
    move(model, 0)
    pruner.apply()
    path = tmp_path / "checkpoint.npz"
    if BACKEND == "torch":
        import torch

        torch.save({"pruner": pruner.state_dict()}, path)
        state = torch.load(path)["pruner"]
    else:
        np.savez(path, **pruner.state_dict())
        with np.load(path) as file:
            state = dict(file)
    other = keras_trim.Pruner(model)
    other.load_state_dict(state)
    for mine, theirs in zip(other.variables, pruner.variables, strict=True):
        np.testing.assert_array_equal(values(mine), values(theirs))


def unnamed():
    """Twelve equal layers, whose names only differ in Keras's numbers."""
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(12))])
    return keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5, 0))


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("is_loaded", [False, True])
def test_state_of_a_model_that_keras_names_anew(is_loaded, is_sorted, tmp_path):
    model = unnamed()
    pruner = keras_trim.Pruner(model)
    move(model, 0)
    pruner.apply()
    state = pruner.state_dict()
    if is_sorted:  # as some files do
        state = dict(sorted(state.items()))
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras") if is_loaded else unnamed()
    copy.set_weights(model.get_weights())
    other = keras_trim.Pruner(copy)
    assert list(other.state_dict()) != list(pruner.state_dict())
    other.load_state_dict(state)
    for mine, theirs in zip(other.variables, pruner.variables, strict=True):
        np.testing.assert_array_equal(values(mine), values(theirs))


def test_frozen_weights_catch_up(model):
    hidden = model.layers[0]
    hidden.trainable = False
    pruner = keras_trim.Pruner(model)
    for step in range(3):
        move(model, step)
        pruner.apply()
    assert values(hidden.kernel).all()
    hidden.trainable = True
    move(model, 3)
    before = values(hidden.kernel).copy()
    pruner.apply()  # does the update of step 4
    sparsity = 0.5 - 0.5 * (1 - 4 / 6) ** 3
    expected = oracle.keep_largest(before, round(128 * sparsity))
    np.testing.assert_array_equal(values(hidden.kernel) != 0, expected)


@needs_jax
def test_frozen_weights_catch_up_in_a_compiled_step(model):
    import jax

    hidden = model.layers[0]
    hidden.trainable = False
    pruner = keras_trim.Pruner(model)
    state = [variable.value for variable in pruner.variables]

    def steps(state):
        weights = [variable.value for variable in model.trainable_variables]
        step = jax.jit(lambda state, weights: pruner.stateless_apply(state, weights))
        for _ in range(3):
            weights, state = step(state, weights)
        return weights, state

    weights, state = steps(state)
    assert [int((w == 0).sum()) for w in weights] == [6, 1]  # out/kernel, out/bias
    hidden.trainable = True
    weights, state = steps(state)
    assert int((weights[0] == 0).sum()) == 64


def test_keeps_zeros():
    model = make_mlp()
    keras_trim.prune(model, distribution={"hidden": 0.7, "out": 0.25})
    before = [values(layer.kernel) != 0 for layer in model.layers]
    keras_trim.prune_low_magnitude(model, keras_trim.KeepZeros())
    pruner = keras_trim.Pruner(model)
    for step in range(2):
        move(model, step)
        pruner.apply()
    for layer, kept in zip(model.layers, before, strict=True):
        np.testing.assert_array_equal(values(layer.kernel) != 0, kept)


@pytest.mark.filterwarnings("ignore:Pruning was stripped before")
@pytest.mark.parametrize(
    "change",
    [
        lambda model: keras_trim.prune_low_magnitude(model),
        lambda model: keras_trim.prune_low_magnitude(model.layers[1]),
        lambda model: keras_trim.strip_pruning(model),
    ],
    ids=["other settings", "another layer", "stripped"],
)
def test_marks_that_change(change):
    model = make_mlp()
    keras_trim.prune_low_magnitude(model.layers[0])
    pruner = keras_trim.Pruner(model)
    keras_trim.prune_low_magnitude(make_mlp())  # marks of other models do not matter
    pruner.apply()
    change(model)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"has changed since.*make a new `keras_trim.Pruner"):
            pruner.apply()
        assert int(values(pruner.iterations)) == 1


def test_state_of_weights_with_equal_paths():
    inputs = keras.Input((8,))
    towers = []
    for _ in range(2):
        tower_inputs = keras.Input((8,))
        tower = keras.Model(tower_inputs, keras.layers.Dense(8, name="fc")(tower_inputs))
        towers.append(tower(inputs))
    model = keras.Model(inputs, keras.layers.Add()(towers))
    keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5, 0))
    pruner = keras_trim.Pruner(model)
    pruner.apply()
    state = pruner.state_dict()
    assert list(state) == ["step", "pruned_steps", "mask/fc/kernel", "mask/fc/kernel#2"]
    other = keras_trim.Pruner(model)
    other.load_state_dict(state)
    for mine, theirs in zip(other.variables, pruner.variables, strict=True):
        np.testing.assert_array_equal(values(mine), values(theirs))


def test_state_from_before_frozen_weights_had_masks(model):
    model.layers[0].trainable = False
    pruner = keras_trim.Pruner(model)
    move(model, 0)
    pruner.apply()
    state = pruner.state_dict()
    expected = deepcopy(state)
    del state[f"mask/{model.layers[0].kernel.path}"]
    state["pruned_steps"] = state["pruned_steps"][1:]
    other = keras_trim.Pruner(model)
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, expected[name])
    model.layers[0].trainable = True
    with pytest.raises(ValueError, match="differs in.*hidden/kernel"):
        other.load_state_dict(state)


def test_wrong_models(model):
    with pytest.raises(ValueError, match="no weights yet"):
        keras_trim.Pruner(keras.layers.Dense(2))
    with pytest.raises(ValueError, match="none of the trainable weights is marked"):
        keras_trim.Pruner(make_mlp())
    with pytest.raises(ValueError, match="in that order"):
        keras_trim.Pruner(model).stateless_apply([], [])


def torch_step(model, optimizer):
    optimizer.zero_grad()
    ops.sum(model(ops.ones((2, 8)))).backward()
    optimizer.step()


@needs_torch
def test_torch_optimizer_without_a_pruner(model):
    import torch

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(ValueError, match=r"make a `keras_trim.Pruner\(model\)`"):
        torch_step(model, optimizer)
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    pruner = keras_trim.Pruner(model)
    torch_step(model, optimizer)
    pruner.apply()
    # Marked after its first steps.
    other = make_mlp()
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    torch_step(other, optimizer)
    keras_trim.prune_low_magnitude(other)
    with pytest.raises(ValueError, match="nothing would prune it"):
        torch_step(other, optimizer)
    with pytest.warns(UserWarning, match="before 2 weights"):
        keras_trim.strip_pruning(other)
    torch_step(other, optimizer)


@needs_torch
def test_forgotten_apply(model):
    import torch

    pruner = keras_trim.Pruner(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch_step(model, optimizer)
    with pytest.raises(ValueError, match="was not called after the last step"):
        torch_step(model, optimizer)
    pruner.apply()
    torch_step(model, optimizer)


@needs_torch
@pytest.mark.parametrize("way", WAYS)
def test_torch_optimizer_of_a_copy(model, way, tmp_path):
    import torch

    copied = WAYS[way](model, tmp_path)
    optimizer = torch.optim.SGD(copied.parameters(), 0.1)
    with pytest.raises(ValueError, match="nothing would prune it.*2 marked weights"):
        torch_step(copied, optimizer)
    pruner = keras_trim.Pruner(copied)
    torch_step(copied, optimizer)
    pruner.apply()


@needs_torch
@pytest.mark.parametrize("is_added", [False, True])
def test_torch_optimizer_of_weights_that_were_frozen(model, is_added):
    import torch

    hidden = model.layers[0]
    hidden.trainable = False
    pruners = [keras_trim.Pruner(model.layers[1])]
    trained = [p for p in model.parameters() if p.requires_grad or not is_added]
    optimizer = torch.optim.SGD(trained, 0.1)
    torch_step(model, optimizer)
    pruners[0].apply()
    hidden.trainable = True
    if is_added:
        optimizer.add_param_group({"params": [v.value for v in hidden.variables]})
    with pytest.raises(ValueError, match="1 marked weight without a pruner, .*hidden/kernel"):
        torch_step(model, optimizer)
    pruners.append(keras_trim.Pruner(hidden))
    torch_step(model, optimizer)
    pruners[0].apply()
    with pytest.raises(ValueError, match="was not called after the last step"):
        torch_step(model, optimizer)
    pruners[1].apply()
    torch_step(model, optimizer)


@needs_torch
def test_several_torch_optimizers(model):
    import torch

    pruner = keras_trim.Pruner(model)
    optimizers = [torch.optim.SGD(layer.parameters(), 0.1) for layer in model.layers]
    for _ in range(2):
        for optimizer in optimizers:
            torch_step(model, optimizer)
        pruner.apply()
    torch_step(model, optimizers[0])
    torch_step(model, optimizers[1])
    for optimizer in optimizers:
        with pytest.raises(ValueError, match="was not called after the last step"):
            torch_step(model, optimizer)


@needs_torch
def test_torch_optimizer_after_pruning(model):
    import torch

    pruner = keras_trim.Pruner(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch_step(model, optimizer)
    pruner.apply()
    torch_step(model, optimizer)
    with pytest.warns(UserWarning, match="before 2 weights"):
        keras_trim.strip_pruning(model)
    for _ in range(2):
        torch_step(model, optimizer)


@needs_torch
def test_the_newest_pruner_counts(model):
    import torch

    old = keras_trim.Pruner(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch_step(model, optimizer)
    keras_trim.prune_low_magnitude(model)
    with pytest.raises(ValueError, match="nothing would prune it.*a new one if marks have changed"):
        torch_step(model, optimizer)
    new = keras_trim.Pruner(model)
    for _ in range(2):
        torch_step(model, optimizer)
        new.apply()
    del new
    with pytest.raises(ValueError, match="nothing would prune it"):
        torch_step(model, optimizer)
    assert repr(old) == "<Pruner of 2 weights, at step 0>"
