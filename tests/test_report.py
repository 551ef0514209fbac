import keras
import numpy as np
import pytest
from conftest import fit, make_mlp

import keras_trim


def test_rows_are_counted_from_the_weights(mlp, data):
    mlp.layers[0].bias.assign(np.arange(16, dtype="float32"))
    keras_trim.prune_low_magnitude(mlp, keras_trim.ConstantSparsity(0.75, 0))
    before = keras_trim.sparsity_report(mlp)
    assert [row.zeros for row in before.rows] == [0, 1, 0, 1]
    mlp.compile(keras.optimizers.SGD(0.0), "mse")
    fit(mlp, data)
    report = keras_trim.sparsity_report(mlp)
    kernel, bias, out, _ = report.rows
    assert (kernel.shape, kernel.pattern, kernel.target, kernel.zeros) == (
        (8, 16),
        "element",
        0.75,
        96,
    )
    assert kernel.layer == "hidden"
    assert kernel.reason is None
    assert bias.reason.startswith("rank 1")
    assert bias.zeros == 1
    assert out.sparsity == 0.75
    assert report.sparsity == (96 + 12) / (128 + 16)
    assert report.model_sparsity == (96 + 1 + 12 + 1) / 161


def test_prints_as_a_table(mlp):
    keras_trim.prune_low_magnitude(mlp, sparsity_m_by_n=(2, 4))
    text = str(keras_trim.sparsity_report(mlp))
    assert "hidden/kernel" in text
    assert "2:4" in text
    assert "50.00%" in text
    assert "rank 1: biases" in text
    assert "pruned weights: 144, of which 0.00% are zero; all weights: 161" in text


def test_unmarked_and_frozen_weights_are_explained(mlp):
    keras_trim.prune_low_magnitude(mlp.layers[0])
    mlp.layers[0].trainable = False
    reasons = [row.reason for row in keras_trim.sparsity_report(mlp).rows]
    assert reasons[0] == "frozen (trainable=False)"
    assert reasons[2] == "not marked by prune_low_magnitude"


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="no weights yet.*Received: model=unbuilt"):
        keras_trim.sparsity_report(keras.Sequential([keras.layers.Dense(1)], name="unbuilt"))
    with pytest.raises(ValueError, match="`model` must be"):
        keras_trim.sparsity_report("model.keras")


def test_the_target_is_what_the_pattern_can_reach():
    model = make_mlp()
    keras_trim.prune_low_magnitude(
        model, keras_trim.ConstantSparsity(0.9, 0), sparsity_m_by_n=(1, 4)
    )
    assert [row.target for row in keras_trim.sparsity_report(model).pruned_rows] == [0.25, 0.25]
