"""Tiny decoder and encoder of KerasHub, with random weights."""

import keras
import numpy as np
import pytest
from conftest import values

import keras_trim

keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")

COMMON = {
    "vocabulary_size": 50,
    "num_layers": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "dropout": 0.0,
}


def gpt():
    return keras_hub.models.GPT2Backbone(num_heads=2, max_sequence_length=12, **COMMON), ()


def bert():
    model = keras_hub.models.BertBackbone(num_heads=2, max_sequence_length=12, **COMMON)
    return model, ("segment_ids",)


@pytest.mark.parametrize("make", [gpt, bert])
def test_every_kernel_of_a_backbone_is_pruned_on_examples(make, rng):
    model, more = make()
    x = {
        "token_ids": rng.integers(0, 50, (24, 12)),
        "padding_mask": np.ones((24, 12), "int32"),
        **{name: np.zeros((24, 12), "int32") for name in more},
    }
    before = {v.path: values(v) for v in model.weights}
    # Warnings are errors: no kernel is pruned by magnitude.
    keras_trim.prune(model, distribution={"kernel$": 0.6}, calibration_data=x)
    kernels = [row for row in keras_trim.sparsity_report(model).rows if "kernel" in row.path]
    assert len(kernels) >= 12
    assert all(row.zeros == round(0.6 * row.size) for row in kernels)
    for variable in model.weights:
        changed = (values(variable) != before[variable.path]).any()
        assert changed or not variable.path.endswith("/kernel")
    assert all(np.isfinite(values(y)).all() for y in keras.tree.flatten(model(x)))
