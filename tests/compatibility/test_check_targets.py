import itertools
import json
import re
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_trim
from keras_trim.compatibility import litert, litert_file
from keras_trim.compatibility.litert_file import LiteRTFile, StoredWeight

BACKEND = keras.backend.backend()
converts = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the converter runs under TensorFlow, in seconds elsewhere"
)


def dense(values):
    """Returns a model of one Dense layer with this kernel."""
    values = np.asarray(values, "float32")
    model = keras.Sequential(
        [keras.Input(values.shape[:1]), layers.Dense(values.shape[1], use_bias=False)]
    )
    model.layers[0].kernel.assign(values)
    return model


def row(model, target):
    report = keras_trim.check(model, target)
    assert len(report.rows) == 1
    return report.rows[0]


def with_zeros(shape, sparsity):
    rng = np.random.default_rng(0)
    values = np.ones(np.prod(shape))
    values[rng.permutation(values.size)[: round(values.size * sparsity)]] = 0
    return values.reshape(shape)


# --- engine


@pytest.mark.parametrize("target", ["engine", "litert", "nvidia-2:4"])
def test_subclassed_models_are_read(target):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)
            self.convolution = layers.Conv1D(2, 1)

        def call(self, x):
            return self.dense(self.convolution(x))

    model = Subclassed()
    model(np.ones((1, 3, 4)))
    assert len(keras_trim.check(model, target).rows) == 2


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_engine(kind, force_kernels):
    """The check reports what the engine does."""
    from keras_trim.inference import Engine

    force_kernels(kind)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(8, 3),
            layers.DepthwiseConv2D(3, name="alone"),
            layers.SeparableConv2D(8, 1),
            layers.Conv2DTranspose(8, 1),
            layers.Conv2D(8, 1, groups=2),
            layers.Reshape((16, 8)),
            layers.SeparableConv1D(8, 1),
            layers.Conv1DTranspose(8, 1),
            layers.Dense(8),
            layers.LSTM(8),
        ]
    )
    report = keras_trim.check(model, "engine")
    assert report.num_sparse == 0
    assert not report
    for variable in model.weights:
        variable.assign(with_zeros(variable.shape, 0.9))
    checked, runs = {}, {}
    for row in keras_trim.check(model, "engine").rows:
        layer = row.path.split("/")[1]
        checked[layer] = checked.get(layer, False) or row.is_sparse
    for row in Engine(model, 1).summary(np.ones((1, 8, 8, 4), "float32")).rows:
        if row.sparsity is not None:
            runs[row.layer] = runs.get(row.layer, False) or "sparse" in row.kernel
    assert runs == checked
    if kind == "sparse":
        assert [layer for layer, is_sparse in runs.items() if not is_sparse] == ["alone"]


def test_layers_within_layers(force_kernels):
    """Weights that the converter of an outer layer reads."""
    force_kernels("sparse")
    model = keras.Sequential(
        [
            keras.Input((6, 8)),
            layers.Bidirectional(layers.LSTM(8, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(8)),
            layers.RNN([layers.LSTMCell(8), layers.GRUCell(8)], return_sequences=True),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
        ]
    )
    full = model.layers[0].backward_layer.cell.recurrent_kernel
    for variable in model.weights:
        variable.assign(with_zeros(variable.shape, 0.05 if variable is full else 0.9))
    rows = [row for row in keras_trim.check(model, "engine").rows if "bias" not in row.path]
    assert len(rows) == 13
    assert [row.path for row in rows if not row.is_sparse] == [full.path]


def test_engine_crossover(force_kernels):
    full, pruned = dense(with_zeros((16, 16), 0.1)), dense(with_zeros((16, 16), 0.8))
    force_kernels("sparse")
    assert "dense is often faster" in row(full, "engine").rule
    assert row(pruned, "engine").is_sparse
    force_kernels("dense")
    assert "measured to be faster on this machine" in row(pruned, "engine").rule


@pytest.mark.filterwarnings("ignore:.*destroy the mask")
def test_what_runs_in_keras_is_not_called_sparse(force_kernels):
    force_kernels("sparse")

    class Own(layers.Layer):
        """A product that only Keras can compute, and one that the engine can."""

        def build(self, shape):
            self.table = self.add_weight(shape=(4, shape[-1]), name="table")
            self.inner = layers.Dense(6)
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x) + keras.ops.sum(
                keras.ops.sort(x @ keras.ops.transpose(self.table))
            )

    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(words)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.Dense(6, name="dense")(layers.Flatten()(x))
    model = keras.Model(words, layers.Dense(3, name="last")(Own(name="own")(x)))
    for variable in model.weights:
        variable.assign(with_zeros(variable.shape, 0.9))
    sparse = {row.path for row in keras_trim.check(model, "engine").rows if row.is_sparse}
    assert {"dense/kernel", "last/kernel"} <= sparse
    from keras_trim.inference import Engine

    in_keras = Engine(model, 1).summary().keras_layers
    assert "attention" in in_keras
    assert not [path for path in sparse if path.startswith("attention/") or "table" in path]


# --- NVIDIA's 2:4


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_2_of_4(data):
    kept = data.draw(st.lists(st.integers(1, 3), min_size=64, max_size=64))
    groups = np.zeros((4, 16, 4))  # inputs, outputs, positions
    for (i, j), count in zip(itertools.product(range(4), range(16)), kept, strict=True):
        groups[i, j, data.draw(st.permutations(range(4)))[:count]] = 1
    checked = row(dense(groups.transpose(0, 2, 1).reshape(16, 16)), "nvidia-2:4")
    too_full = sum(count > 2 for count in kept)
    assert checked.is_sparse == (too_full == 0)
    if too_full:
        assert checked.rule.startswith(f"{too_full} of 64 groups of 4 inputs")


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv1D(16, 3),
        layers.Conv2D(16, 3),
        layers.Conv3D(16, 2),
        layers.EinsumDense("...c,cde->...de", (4, 8)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_2_of_4_in_other_layers(layer):
    rank = getattr(layer, "rank", 1)
    model = keras.Sequential([keras.Input((*[4] * rank, 32)), layer])
    checked = keras_trim.check(model, "nvidia-2:4").rows[0]
    assert checked.rule.endswith("groups of 4 inputs have more than 2 non-zero weights")
    assert "sparsity_m_by_n=(2, 4)" in checked.cure
    keras_trim.prune(model, 0.5, sparsity_m_by_n=(2, 4))
    assert keras_trim.check(model, "nvidia-2:4")


@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (24, 16)])
def test_sizes_for_2_of_4(shape):
    checked = row(dense(np.zeros(shape)), "nvidia-2:4")
    assert not checked.is_sparse
    assert f"{shape[0]} inputs and {shape[1]} outputs are not both multiples of 16" in checked.rule


def test_2_of_4_of_other_kinds():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 32)),
            layers.Conv2D(32, 3, groups=2),
            layers.DepthwiseConv2D(3),
            layers.Conv2DTranspose(32, 3),
        ]
    )
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    report = keras_trim.check(model, "nvidia-2:4")
    assert ["for Dense layers and for convolutions" in row.rule for row in report.rows] == [
        True
    ] * 3


# --- LiteRT


def blocks(shape, sparsity):
    """Puts zeros in whole blocks of 4 inputs."""
    return np.repeat(with_zeros((shape[0] // 4, shape[1]), sparsity), 4, axis=0)


DENSE = [
    (blocks((64, 64), 0.8), True, None),
    (blocks((64, 64), 0.5), True, "below 75% zeros that may be slower"),
    (with_zeros((64, 64), 0.8), False, "must come in blocks of 4 inputs"),
    (blocks((64, 64), 0.8).T, False, "must come in blocks of 4 inputs"),
    (with_zeros((64, 64), 0.0), False, "few zeros"),
]


@converts
def test_dense_layers_of_litert():
    """One model has them all, because a conversion takes seconds."""
    x = keras.Input((64,))
    outputs = [layers.Dense(64, use_bias=False)(x) for _ in DENSE]
    model = keras.Model(x, outputs)
    for variable, (values, _, _) in zip(model.weights, DENSE, strict=True):
        variable.assign(values)
    rows = keras_trim.check(model, "litert").rows
    for checked, (_, is_sparse, rule) in zip(rows, DENSE, strict=True):
        assert checked.is_sparse == is_sparse
        assert rule in checked.rule if rule else checked.rule is None
        assert checked.is_stored_sparsely == (checked.sparsity > 0.3)


@converts
def test_what_the_file_of_litert_omits():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 4), dtype="int32"),
            layers.Embedding(16, 8),
            layers.Conv3D(8, 1),
            layers.Reshape((64, 8)),
            layers.Conv1D(16, 1),
            layers.LSTM(8),
        ]
    )
    for variable in model.weights:
        zeros = 0.9 if len(variable.shape) > 1 else 0
        variable.assign(with_zeros(variable.shape, zeros))
    report = keras_trim.check(model, "litert")
    stored = {row.kind: row.is_stored_sparsely for row in report.rows}
    assert stored == {"Embedding": False, "Conv3D": False, "Conv1D": True, "LSTMCell": True}
    assert report.num_sparse == 0
    assert report.obstacles == []
    assert "in the file" in str(report)


@converts
def test_litert_does_not_skip_what_it_does_not_read_as_it_is_stored():
    """A Dense layer in blocks that the file stores densely: another operation reads it."""
    x = keras.Input((16, 64))
    outputs = layers.Dense(32, use_bias=False, name="twice")(x)
    outputs = layers.EinsumDense("abc,bcd->abd", (16, 32), name="batched")(outputs)
    model = keras.Model(x, outputs)
    for layer in model.layers[1:]:
        shape = tuple(layer.kernel.shape)
        layer.kernel.assign(
            np.repeat(with_zeros((*shape[:-2], shape[-2] // 4, shape[-1]), 0.8), 4, -2)
        )
    checked = {row.layer: row for row in keras_trim.check(model, "litert").rows}
    assert checked["twice"].is_sparse
    assert not checked["batched"].is_sparse
    assert "1x1 Conv2D layers and Dense layers in blocks only" in checked["batched"].rule


@pytest.mark.parametrize("name", ["RELU6", "TRANSPOSE"])
def test_an_operation_of_the_file_in_the_way(name, monkeypatch):
    """Keras's graph has nothing that XNNPACK cannot run, but the file has. The file counts."""
    model = xnnpack_model()
    kernel = keras.ops.convert_to_numpy(model.get_layer("pointwise").kernel)
    file = LiteRTFile(
        ["CONV_2D", name, "CONV_2D", "MEAN"],
        [StoredWeight(kernel.transpose(3, 0, 1, 2), True, [("CONV_2D", False)])],
    )
    monkeypatch.setattr(litert, "_convert", lambda model: b"")
    monkeypatch.setattr(litert_file, "read", lambda data: file)
    assert keras_trim.check(model, "xnnpack")
    report = keras_trim.check(model, "litert")
    assert bool(report) == (name == "RELU6")
    assert [obstacle.rule for obstacle in report.obstacles] == (
        []
        if name == "RELU6"
        else ["TRANSPOSE: XNNPACK cannot run this operation of the file channels-first"]
    )


def test_a_weight_that_the_file_holds_in_another_form(monkeypatch):
    file = LiteRTFile([], [StoredWeight(np.ones((32, 64)), False, [])])
    monkeypatch.setattr(litert, "_convert", lambda model: b"")
    monkeypatch.setattr(litert_file, "read", lambda data: file)
    checked = row(dense(blocks((64, 32), 0.8)), "litert")
    assert not checked.is_sparse
    assert "no weight of the file has these zeros" in checked.rule


def xnnpack_model(*between):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.ZeroPadding2D(1),
            layers.Conv2D(8, 3, strides=2, name="stem"),
            *between,
            layers.Conv2D(8, 1, name="pointwise"),
            layers.GlobalAveragePooling2D(keepdims=True),
        ]
    )
    keras_trim.prune(model.get_layer("pointwise"), 0.8)
    return model


@pytest.mark.skipif(BACKEND != "torch", reason="the converter runs under PyTorch")
def test_onnx_skips_nothing():
    report = keras_trim.check(dense(blocks((64, 32), 0.8)), "onnx")
    assert not report
    (checked,) = report.rows
    assert not checked.is_sparse
    assert not checked.is_stored_sparsely
    assert checked.rule == "ONNX Runtime has no kernel that skips zeros"


@pytest.mark.parametrize("target", ["litert", "onnx"])
def test_targets_that_need_an_extra(target, monkeypatch):
    package = {"litert": "ai_edge_litert", "onnx": "onnxscript"}[target]
    monkeypatch.setitem(sys.modules, package, None)  # as if not installed
    with pytest.raises(ImportError, match=rf'pip install "keras-trim\[{target}\]"'):
        keras_trim.check(dense(blocks((64, 32), 0.8)), target)


@converts
def test_litert_runs_what_xnnpack_runs():
    model = xnnpack_model()
    assert keras_trim.check(model, "litert")
    keras_trim.prune(model.get_layer("stem"), 0.8)
    assert not keras_trim.check(model, "litert")


# --- all


TARGETS = ["xnnpack", "litert", "engine", "nvidia-2:4"]


@pytest.mark.parametrize("target", TARGETS)
def test_reports(target):
    model = keras.Sequential([keras.Input((32,)), layers.Dense(16, name="[bold]odd")])
    report = keras_trim.check(model, target)
    assert not report
    text = str(report)
    assert "[bold]odd/kernel" in text
    assert report.summary in text
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is False
    assert data["target"] == target
    assert data["rows"][0]["shape"] == [32, 16]
    assert data["rows"][0]["sparsity"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "onyx"}, r"must be one of 'xnnpack', 'litert'.*Received: target='onyx'"),
        ({"target": "tflite"}, r"did you mean 'litert'\?"),
        ({"target": ["onnx"]}, r"Received: target=\['onnx'\]"),
        ({"model": layers.Dense(2)}, "must be a Keras model"),
        ({"model": keras.Sequential([layers.Dense(2)])}, "no weights yet"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_trim.check(**{"model": dense(np.ones((2, 2))), **arguments})


@pytest.mark.parametrize("target", TARGETS)
def test_a_model_without_weights(target):
    model = keras.Sequential([keras.Input((2,)), layers.ReLU()])
    assert keras_trim.check(model, target).summary.startswith("0 of 0 weights")


def test_weights_that_are_shared_appear_once():
    shared = layers.Dense(8, use_bias=False)
    x = keras.Input((8,))
    model = keras.Model(x, shared(shared(x)))
    assert [row.path for row in keras_trim.check(model, "engine").rows] == [shared.kernel.path]


def test_the_engine_tells_its_threads():
    (note,) = keras_trim.check(dense(np.eye(16)), "engine").notes
    assert re.search(r"with (1 thread|[2-9]\d* threads|1\d+ threads)$", note)
