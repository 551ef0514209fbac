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
    assert "not pruned, by design: 2 biases" in text
    assert "bias" not in text.partition("not pruned")[0]
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


def test_zeros_are_counted_without_marks(mlp, data, tmp_path):
    """After `strip_pruning` and `prune`, and in files, the zeros are those that stand there."""
    keras_trim.prune(mlp, 0.75)
    mlp.save(tmp_path / "model.keras")
    trained = keras_trim.prune_low_magnitude(make_mlp(), keras_trim.ConstantSparsity(0.75, 0))
    trained.compile("sgd", "mse")
    fit(trained, data)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for model in (mlp, keras_trim.strip_pruning(trained), loaded):
        report = keras_trim.sparsity_report(model)
        assert report.sparsity == 0.75
        assert [row.zeros for row in report.pruned_rows] == [96, 12]
        assert "prunable weights: 144, of which 75.00% are zero" in str(report)
        assert "not pruned because" not in str(report)
    assert keras_trim.sparsity_report(make_mlp()).sparsity == 0.0


def test_weights_that_are_never_pruned_take_one_line():
    layers = [keras.Input((8, 8, 3))]
    for _ in range(3):
        layers += [
            keras.layers.DepthwiseConv2D(3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(4, 1),
        ]
    text = str(keras_trim.sparsity_report(keras.Sequential(layers)))
    (line,) = [line for line in text.splitlines() if "BatchNormalization" in line]
    assert line == (
        "not pruned, by design: 3 BatchNormalization layers, 3 depthwise kernels, 3 biases"
    )
    assert text.count("kernel ") == 3


def test_nested_models_stand_in_their_order():
    inner = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(4, name="b")]
    )
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, name="first"),
            inner,
            keras.layers.Dense(2, name="c"),
        ]
    )
    rows = keras_trim.sparsity_report(model).pruned_rows
    assert [row.layer for row in rows] == ["first", "a", "b", "c"]


def test_in_a_notebook_it_is_html(mlp):
    report = keras_trim.sparsity_report(keras_trim.prune(mlp, 0.75))
    page = report._repr_html_()
    assert page.count("<tr>") == 1 + 2 + 1 + 2  # a heading and rows, and what unfolds
    assert "75.00%" in page
    assert "<details><summary>2 weights that are not pruned" in page


def test_a_terminal_is_not_wider_than_it_is(mlp, monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "60")
    keras_trim.prune_low_magnitude(mlp)
    text = str(keras_trim.sparsity_report(mlp))
    assert max(map(len, text.splitlines())) <= 60
    text.encode("cp1252")  # Terminal's encoding, which has no lines


class Terminal:
    encoding = "cp1252"

    def isatty(self):
        return True


def test_a_model_without_weights(one_backend):
    report = keras_trim.sparsity_report(keras.Sequential([keras.Input((4,)), keras.layers.ReLU()]))
    assert report.rows == []
    assert str(report) == "all weights: 0, 0.00% zero"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "no such encoding"])
def test_names_that_the_output_cannot_encode(encoding, one_backend, monkeypatch):
    monkeypatch.setattr(Terminal, "encoding", encoding)
    monkeypatch.setattr("sys.stdout", Terminal())
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="\u5c64")])
    text = str(keras_trim.sparsity_report(model))
    assert "/?/kernel" in text
    text.encode("ascii")
