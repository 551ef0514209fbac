"""Files that earlier versions wrote during pruning load, and training continues."""

import sys

import keras
import numpy as np
import pytest
from conftest import values

import keras_trim

sys.path.insert(0, str(__import__("pathlib").Path(__file__).with_name("data")))
from make_old_checkpoints import FOLDER, fit, make_model

EXPECTED = np.load(FOLDER / "expected.npz")


def load(name):
    if name == "model.keras":
        return keras.models.load_model(FOLDER / name)
    if name == "model.ktrim":
        return keras_trim.load(FOLDER / name)
    model = make_model()
    keras_trim.UpdatePruningStep().set_model(model)
    model.optimizer.build(model.trainable_variables)
    model.load_weights(FOLDER / name)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "model.ktrim"])
def test_old_checkpoints_load_and_train_on(name):
    model = load(name)
    for i, weight in enumerate(model.get_weights()):
        np.testing.assert_array_equal(weight, EXPECTED[f"weight_{i}"])
    for i, weight in enumerate(model.optimizer.pruned_weights):
        np.testing.assert_array_equal(values(weight.mask), EXPECTED[f"mask_{i}"])
    assert int(model.optimizer.iterations) == EXPECTED["step"]
    fit(model, epochs=2)
    for i, weight in enumerate(model.get_weights()):  # the backend may differ
        np.testing.assert_allclose(weight, EXPECTED[f"later_{i}"], rtol=1e-4, atol=1e-6)
    rows = keras_trim.sparsity_report(model).pruned_rows
    assert [row.zeros for row in rows] == [96, 12]
