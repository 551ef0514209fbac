"""Errors of converters in one sentence."""

import keras
import pytest
from keras import layers

from keras_trim.exporters.reasons import reason

LITERT = """Could not translate MLIR to FlatBuffer.<unknown>:0: error: \
loc(callsite(fused["DenseBincount:", "model_12_1/counts_1/bincount/DenseBincount@__call"] \
at fused["StatefulPartitionedCall:", "StatefulPartitionedCall@__inference_signature"])): \
'tf.DenseBincount' op is neither a custom op nor a flex op
<unknown>:0: error: failed while converting: 'main':
Some ops are not supported by the native TFLite runtime
Details:
\ttf.DenseBincount(tensor<?x4xi32>, tensor<i32>) -> (tensor<?x6xf32>) : {device = ""}
"""


def test_an_operation_that_litert_lacks():
    model = keras.Sequential(name="model_12")  # is around the layer, and would tell less
    found = [model, layers.Dense(1, name="dense"), layers.Dense(1, name="counts")]
    text = reason(ValueError(LITERT), found)
    assert text.startswith("'tf.DenseBincount' op is neither a custom op nor a flex op, tf.Dense")
    assert text.endswith(" (in layer 'counts')")
    assert "loc(" not in text
    assert reason(ValueError('loc(fused["a", "b/c@d"]): too large.')) == "too large"


def test_what_pytorchs_exporter_wraps():
    errors = pytest.importorskip("torch.onnx.errors")
    error = errors.OnnxExporterError("Failed to export the model. Next steps:")
    assert reason(error) == "Failed to export the model. Next steps:"
    error.__cause__ = RuntimeError("no table of integers\nmore")
    assert reason(error) == "no table of integers"
