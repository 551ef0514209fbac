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
@pytest.mark.filterwarnings("ignore:.*pruned by magnitude")
def test_backbones(make, rng):
    errors = {}
    for method in ("magnitude", "reconstruct"):
        keras.utils.set_random_seed(0)
        model, more = make()
        for variable in model.trainable_variables:  # as if trained: far from all alike
            variable.assign(
                variable + 0.2 * np.random.default_rng(1).standard_normal(variable.shape)
            )
        x = {
            "token_ids": rng.integers(0, 50, (24, 12)),
            "padding_mask": np.ones((24, 12), "int32"),
            **{name: np.zeros((24, 12), "int32") for name in more},
        }
        before = keras.tree.flatten(model(x))
        names = {"kernel$": 0.6}
        keras_trim.prune(model, distribution=names, calibration_data=x, method=method)
        after = keras.tree.flatten(model(x))
        errors[method] = sum(
            np.mean((values(a) - values(b)) ** 2) for a, b in zip(after, before, strict=True)
        )
        kernels = [row for row in keras_trim.sparsity_report(model).rows if "kernel" in row.path]
        assert all(row.zeros == round(0.6 * row.size) for row in kernels)
    assert errors["reconstruct"] < 0.6 * errors["magnitude"]
