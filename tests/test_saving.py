"""Models saved during pruning and after it, with real processes."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp, values, zeros

import keras_trim
from keras_trim import PolynomialDecay

SCHEDULE = PolynomialDecay(0.25, 0.75, 1, 14, frequency=3)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(16, activation="relu")
        self.out = keras.layers.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))


def run(code, **kwargs):
    """Runs code in a fresh interpreter and returns its output."""
    code = textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **kwargs
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(model):
    return [values(variable) for variable in model.variables + model.optimizer.variables]


def assert_same(model, other):
    for mine, theirs in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(Training ended|The pruning schedule ends) at step")
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("make", [make_mlp, Subclassed], ids=["sequential", "subclassed"])
def test_interrupted_and_resumed_equals_uninterrupted(make, policy, data, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = keras_trim.prune_low_magnitude(make(), SCHEDULE)
    model(data[0])
    optimizer = keras.optimizers.Adam(0.01, weight_decay=0.01)
    model.compile(optimizer, "mse")
    fit(model, data, epochs=2, shuffle=False)
    path = str(tmp_path / "model.keras")
    model.save(path)
    resumed = keras.models.load_model(path)
    assert_same(resumed, model)
    fit(model, data, epochs=2, shuffle=False)
    resumed.fit(*data, batch_size=16, epochs=2, shuffle=False, verbose=0)  # needs no callback
    assert_same(resumed, model)
    assert zeros(resumed)[0] == 96
    # It is marked again, too, so a newly compiled model is not trained densely by mistake.
    resumed.compile("sgd", "mse")
    with pytest.raises(ValueError, match="marked for pruning"):
        resumed.fit(*data, verbose=0)


@pytest.mark.filterwarnings("ignore:(Training ended|The pruning schedule ends) at step")
def test_weights_and_optimizer_restore_a_model_that_is_made_anew(data, tmp_path):
    def make():
        model = keras_trim.prune_low_magnitude(make_mlp(), SCHEDULE)
        model.compile("adam", "mse")
        keras_trim.UpdatePruningStep().set_model(model)
        return model

    model = make()
    fit(model, data, epochs=2, shuffle=False)
    path = str(tmp_path / "model.weights.h5")
    model.save_weights(path)
    optimizer_state = {}
    model.optimizer.save_own_variables(optimizer_state)
    resumed = make()
    resumed.load_weights(path)
    resumed.optimizer.load_own_variables(optimizer_state)
    assert_same(resumed, model)
    for each in (model, resumed):
        fit(each, data, epochs=2, shuffle=False)
    assert_same(resumed, model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(Training ended|The pruning schedule ends) at step")
def test_a_saved_model_resumes_in_another_process(data, tmp_path):
    model = keras_trim.prune_low_magnitude(make_mlp(), SCHEDULE, sparsity_m_by_n=(2, 4))
    model.compile("adam", "mse")
    fit(model, data, epochs=2, shuffle=False)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=data[0], y=data[1])
    run(
        """
        import keras, keras_trim, numpy as np
        model = keras.models.load_model("model.keras")
        data = np.load("data.npz")
        model.fit(data["x"], data["y"], batch_size=16, epochs=2, shuffle=False, verbose=0)
        model.save_weights("resumed.weights.h5")
        """,
        cwd=tmp_path,
    )
    fit(model, data, epochs=2, shuffle=False)
    resumed = make_mlp()
    resumed.load_weights(tmp_path / "resumed.weights.h5")
    for mine, theirs in zip(model.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(values(mine), values(theirs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(Training|Pruning)")
@pytest.mark.filterwarnings("ignore:The pruning schedule ends at step")
def test_a_stripped_model_loads_without_keras_trim(data, tmp_path):
    model = keras_trim.prune_low_magnitude(make_mlp(), SCHEDULE)
    model.compile("adam", "mse")
    fit(model, data)
    keras_trim.strip_pruning(model).save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=data[0], y=data[1], prediction=model.predict(data[0]))
    printed = run(
        """
        import sys
        sys.modules["keras_trim"] = None  # not installed
        import keras, numpy as np
        model = keras.models.load_model("model.keras")
        data = np.load("data.npz")
        np.testing.assert_array_equal(model.predict(data["x"], verbose=0), data["prediction"])
        model.fit(data["x"], data["y"], verbose=0)
        print(type(model.optimizer).__name__, int(model.optimizer.iterations.numpy()))
        """,
        cwd=tmp_path,
    )
    assert printed.split() == ["Adam", "10"]


@pytest.mark.slow
def test_importing_keras_trim_imports_no_other_backend():
    backend = keras.backend.backend()
    printed = run(
        """
        import sys
        import keras
        before = set(sys.modules)
        import keras_trim
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        print(sorted(new & {"jax", "tensorflow", "torch", "matplotlib", "tensorboard"}))
        """
    )
    assert printed.strip() == "[]", backend
