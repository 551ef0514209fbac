"""Marks follow a model that is saved, copied or cloned, before training and after."""

import copy
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp, values, zeros
from test_saving import Subclassed, assert_same

import keras_trim
from keras_trim import ConstantSparsity, PolynomialDecay

SCHEDULE = PolynomialDecay(0.25, 0.75, 1, 7, frequency=2)
tf_keras = keras._tf_keras.keras  # what TensorFlow calls `tf.keras`


def nested():
    inner = make_mlp()
    outer = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="first"), inner])
    keras_trim.prune_low_magnitude(inner, SCHEDULE, sparsity_m_by_n=(2, 4))
    return keras_trim.prune_low_magnitude(outer, ConstantSparsity(0.5, 0))


def marked_mlp():
    model = keras_trim.prune_low_magnitude(make_mlp(), SCHEDULE)
    model.layers[1].trainable = False
    return model


def marked_subclassed():
    model = Subclassed()
    model(np.zeros((1, 8)))
    return keras_trim.prune_low_magnitude(model, SCHEDULE, block_size=(2, 1))


def through_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def through_json(model, tmp_path):
    return keras.models.model_from_json(model.to_json())


WAYS = {
    "file": through_file,
    "json": through_json,
    "pickle": lambda model, tmp_path: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, tmp_path: copy.deepcopy(model),
    "clone": lambda model, tmp_path: keras.models.clone_model(model),
    "clone of tf.keras": lambda model, tmp_path: tf_keras.models.clone_model(model),
}


def marks(model):
    """Lists what is marked, without paths, because a copy has other paths."""
    rows = keras_trim.sparsity_report(model).rows
    return [(row.shape, row.pattern, row.target) for row in rows]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:1 weight that is marked for pruning is not trained")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [marked_mlp, nested, marked_subclassed])
def test_marks_go_along(make, way, data, tmp_path):
    if make is marked_subclassed and way.startswith("clone"):
        pytest.skip("Keras clones no subclassed models")
    model = make()
    copied = WAYS[way](model, tmp_path)
    if not copied.built:
        copied(data[0])
    assert marks(copied) == marks(model)
    # Nothing would prune it, which is an error. With the callback, it is pruned.
    copied.compile("sgd", "mse")
    with pytest.raises(ValueError, match="marked for pruning"):
        copied.fit(*data, verbose=0)
    fit(copied, data)
    rows = keras_trim.sparsity_report(copied).pruned_rows
    assert all(row.zeros == round(row.target * row.size) for row in rows)


def test_a_model_that_scikit_learn_clones_is_pruned(data):
    pytest.importorskip("sklearn")
    model = keras_trim.prune_low_magnitude(make_mlp(), SCHEDULE)
    model.compile("sgd", "mse")
    regressor = keras.wrappers.SKLearnRegressor(model)
    callbacks = [keras_trim.UpdatePruningStep()]
    x, y = data
    regressor.fit(x, y.ravel(), epochs=2, batch_size=16, verbose=0, callbacks=callbacks)
    assert zeros(regressor.model_) == [96, 12]


@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
def test_masks_and_momenta_go_along_in_training(way, data, tmp_path):
    model = keras_trim.prune_low_magnitude(make_mlp(), SCHEDULE)
    model.compile("adam", "mse")
    with pytest.warns(UserWarning, match="ends at step .*, but this `fit`"):
        fit(model, data, epochs=1, shuffle=False)
    copied = WAYS[way](model, tmp_path)
    assert_same(copied, model)
    for each in (model, copied):
        fit(each, data, epochs=1, shuffle=False)
    assert_same(copied, model)


@pytest.mark.slow
def test_a_marked_model_loads_without_keras_trim(tmp_path):
    model = marked_subclassed()
    model.save(tmp_path / "model.keras")
    (tmp_path / "model.json").write_text(marked_mlp().to_json())
    code = """
import sys
sys.modules["keras_trim"] = None  # not installed
import keras

@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(16, activation="relu")
        self.out = keras.layers.Dense(1)
    def call(self, x):
        return self.out(self.hidden(x))

keras.models.model_from_json(open("model.json").read())
model = keras.models.load_model("model.keras")
model.save("again.keras")
keras.models.load_model("again.keras")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("marks", [{}, 3, {"variables": [], "schedules": [], "weights": [{}]}])
def test_marks_that_cannot_be_read_are_lost_with_a_warning(marks):
    config = keras.saving.serialize_keras_object(marked_mlp())
    with pytest.warns(UserWarning, match="Its marks are lost: call .*prune_low_magnitude"):
        model = keras.saving.deserialize_keras_object({**config, "keras_trim": marks})
    assert model.count_params() == make_mlp().count_params()


@pytest.mark.filterwarnings("ignore:.*is restored in part")
def test_frozen_after_training(data, tmp_path):
    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    fit(model, data)
    model.trainable = False
    loaded = through_file(model, tmp_path)
    assert zeros(model) == []
    assert marks(loaded) == marks(model)
    for layer in loaded.layers:  # on TensorFlow, Keras does not propagate it from a loaded model
        layer.trainable = True
    loaded.compile("adam", "mse")
    fit(loaded, data)
    assert zeros(loaded) == [64, 8]


@pytest.mark.filterwarnings("ignore:.*is restored in part")
@pytest.mark.filterwarnings("ignore:.*marked for pruning (is|are) not trained")
def test_what_is_trainable_when_it_is_saved_does_not_matter(data, tmp_path):
    """Positions among the trainable weights change with `trainable`, but paths do not."""
    names = ("base0", "base1", "head0", "head1")
    layers = [keras.layers.Dense(8, name=name) for name in names]
    model = keras.Sequential([keras.Input((8,)), *layers])
    for layer in layers[:2]:
        layer.trainable = False
    keras_trim.prune_low_magnitude(layers[2:], ConstantSparsity(0.75, 0))
    model.compile("adam", "mse")
    fit(model, (data[0], data[0]))
    before = [values(weight.mask) for weight in model.optimizer.pruned_weights]
    for layer in layers:
        layer.trainable = True
    layers[2].trainable = False
    loaded = through_file(model, tmp_path)
    pruned = loaded.optimizer.pruned_weights
    assert [weight.variable.path.split("/")[-2] for weight in pruned] == ["head1"]
    np.testing.assert_array_equal(values(pruned[0].mask), before[1])
    fit(loaded, (data[0], data[0]))
    kernels = [values(layer.kernel) for layer in loaded.layers]
    assert [int((kernel == 0).sum()) for kernel in kernels] == [0, 0, 48, 48]


def test_momenta_find_their_weights(data, tmp_path):
    """Restores an optimizer that was built for more weights than were saved, by path."""
    model = make_mlp()
    model.layers[0].trainable = False
    keras_trim.prune_low_magnitude(model.layers[1], ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    fit(model, data)
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    other = make_mlp()
    keras_trim.prune_low_magnitude(other.layers[1], ConstantSparsity(0.5, 0))
    other.compile("adam", "mse")
    with pytest.warns(UserWarning, match="in part: 4 of its variables are not in the file.*hidden"):
        other.load_weights(path)
    mine, theirs = [
        {v.path.split("out_")[-1]: values(v) for v in m.optimizer.inner_optimizer.variables}
        for m in (model, other)
    ]
    assert theirs["kernel_momentum"].any()
    for name in ("kernel_momentum", "kernel_velocity", "bias_momentum", "bias_velocity"):
        np.testing.assert_array_equal(mine[name], theirs[name])


def test_masks_of_other_weights(data, tmp_path):
    model = make_mlp()
    keras_trim.prune_low_magnitude(model.layers[1], ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    fit(model, data)
    model.save_weights(tmp_path / "a.weights.h5")
    other = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    other.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"no masks for 1 weight.*hidden/kernel \(8, 16\)"):
        other.load_weights(tmp_path / "a.weights.h5")


@pytest.mark.parametrize("own", [False, True])
def test_weights_only_checkpoints_resume(own, data, tmp_path):
    def make():
        model = keras_trim.prune_low_magnitude(make_mlp(), SCHEDULE)
        model.compile(keras_trim.PruningOptimizer("adam") if own else "adam", "mse")
        return model

    model = make()
    with pytest.warns(UserWarning, match="ends at step .*, but this `fit`"):
        fit(model, data, epochs=1, shuffle=False)
    model.save_weights(tmp_path / "a.weights.h5")
    resumed = make()
    resumed.load_weights(tmp_path / "a.weights.h5")  # before any training
    assert_same(resumed, model)
    for each in (model, resumed):
        fit(each, data, epochs=1, shuffle=False)
    assert_same(resumed, model)
