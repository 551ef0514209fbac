"""Commands that write a network's weights, and files for runtimes that cannot read Keras models.

LiteRT's converter needs TensorFlow, and ONNX export needs PyTorch. So each format has its own
process, with the Keras backend that it needs.
"""

import contextlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import keras
import numpy as np

from benchmarks import _inference_models
from benchmarks._common import serve

# The newest version that DeepSparse 1.8 reads.
_OPSET, _IR_VERSION = 18, 8


def write_weights(name, sparsity, path):
    """Writes the weights that all files of a network share."""
    with open(path, "wb") as file:
        np.savez(file, *_inference_models.draw_weights(keras, name, sparsity))


def write_tflite(name, weights, path, sparse_path):
    """Writes the network twice: as usual, and with zeros stored sparsely."""
    import tensorflow as tf

    with _saved_model(name, weights) as folder:
        for target, optimizations in (
            (path, []),
            (sparse_path, [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]),
        ):
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            converter.optimizations = optimizations
            pathlib.Path(target).write_bytes(converter.convert())


def write_tflite_int8(name, weights, path):
    """Writes the network with weights and activations in int8; inputs and outputs are float32."""
    import tensorflow as tf

    with _saved_model(name, weights) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x] for x in _calibration(name))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        pathlib.Path(path).write_bytes(converter.convert())


@contextlib.contextmanager
def _saved_model(name, weights):
    """Returns the path of a SavedModel of the network for one example."""
    model = _inference_models.build(keras, name, weights)
    shape = (1, *_inference_models.NETWORKS[name].shape)
    signature = [keras.InputSpec(shape=shape, dtype="float32")]
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, format="tf_saved_model", input_signature=signature, verbose=False)
        yield folder


def _calibration(name, count=16):
    """Yields random examples, different from the measured ones."""
    for seed in range(100, 100 + count):
        yield _inference_models.make_input(name, seed)


def write_onnx(name, weights, path):
    """Writes the network channels-first, down to the operations that DeepSparse runs sparsely."""
    import onnx

    if name == "lstm":
        onnx.save(_lstm(weights), path)
        return
    keras.config.set_image_data_format("channels_first")
    model = _inference_models.build(keras, name, weights)
    with tempfile.TemporaryDirectory() as folder:
        raw, slim = f"{folder}/raw.onnx", f"{folder}/slim.onnx"
        signature = [keras.InputSpec(shape=(1, *model.input_shape[1:]), dtype="float32")]
        model.export(raw, format="onnx", input_signature=signature, verbose=False)
        exported = onnx.load(raw)
        exported.opset_import[0].version = _OPSET
        exported.ir_version = _IR_VERSION
        onnx.save(exported, raw)
        script = pathlib.Path(sys.executable).with_name("onnxslim")
        subprocess.run([script, raw, slim], check=True, stdout=subprocess.DEVNULL)
        slimmed = onnx.load(slim)
        _fold_normalization(slimmed.graph)
        onnx.save(slimmed, path)


def write_onnx_int8(name, source, path):
    """Quantizes the ONNX file `source` for ONNX Runtime: weights per channel, activations uint8."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = f"{folder}/prepared.onnx"
        quant_pre_process(source, prepared)
        quantization.quantize_static(
            prepared,
            path,
            _Calibration(name, source),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def write_openvino_int8(name, source, path):
    """Quantizes the ONNX file `source` for OpenVINO, and writes one XML file and its weights."""
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    data = nncf.Dataset(list(_channels_first(name)))
    quantized = nncf.quantize(model, data, subset_size=16)
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(quantized, f"{folder}/network.xml", compress_to_fp16=False)
        with zipfile.ZipFile(path, "w") as archive:
            for file in pathlib.Path(folder).iterdir():
                archive.write(file, file.name)


def _channels_first(name):
    for x in _calibration(name):
        yield np.ascontiguousarray(x.transpose(0, 3, 1, 2))


class _Calibration:
    """Feeds calibration examples to ONNX Runtime."""

    def __init__(self, name, source):
        import onnx

        graph = onnx.load(source).graph
        self._input = graph.input[0].name
        self._examples = _channels_first(name)

    def get_next(self):
        x = next(self._examples, None)
        return None if x is None else {self._input: x}


def _fold_normalization(graph):
    """Folds normalizations, by now per-channel constants, into the preceding convolution.

    Keras exports them as a subtraction, a product and a sum.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    users = {}
    for node in graph.node:
        for value in node.input:
            users.setdefault(value, []).append(node)
    for convolution in [node for node in graph.node if node.op_type == "Conv"]:
        kernel = numpy_helper.to_array(constants[convolution.input[1]])
        bias = np.zeros(len(kernel), np.float32)
        if len(convolution.input) > 2:
            bias = numpy_helper.to_array(constants[convolution.input[2]])
        while True:
            following = users.get(convolution.output[0], [])
            if len(following) != 1 or following[0].op_type not in ("Sub", "Mul", "Add"):
                break
            node = following[0]
            constant = constants.get(node.input[1]) or constants.get(node.input[0])
            # A residual sum has no constant. A constant minus a value does not occur.
            if constant is None or (node.op_type == "Sub" and node.input[1] not in constants):
                break
            constant = np.broadcast_to(numpy_helper.to_array(constant).reshape(-1), bias.shape)
            if node.op_type == "Mul":
                kernel, bias = kernel * constant[:, None, None, None], bias * constant
            else:
                bias = bias + constant if node.op_type == "Add" else bias - constant
            convolution.output[0] = node.output[0]
            graph.node.remove(node)
        names = [f"{convolution.output[0]}/{part}" for part in ("kernel", "bias")]
        for name, array in zip(names, (kernel, bias), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        convolution.input[:] = [convolution.input[0], *names]
    used = {value for node in graph.node for value in node.input}
    for tensor in list(graph.initializer):
        if tensor.name not in used:
            graph.initializer.remove(tensor)


def count_onnx_operations(path):
    """Returns a dict: kind of operation -> count."""
    import onnx

    kinds = [node.op_type for node in onnx.load(path).graph.node]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def _lstm(weights):
    """Writes the network with ONNX's own LSTM, because the exporter would unroll all steps."""
    from onnx import TensorProto, helper, numpy_helper

    model = _inference_models.build(keras, "lstm", weights)
    nodes = [helper.make_node("Transpose", ["x"], ["steps first"], perm=[1, 0, 2])]
    constants, x = [], "steps first"
    for number, layer in enumerate(model.layers):
        kernel, recurrent, bias = layer.get_weights()
        names = [f"{part}{number}" for part in ("w", "r", "b")]
        biases = np.concatenate([_gates(bias), np.zeros_like(bias)])[None]
        arrays = (_gates(kernel).T[None], _gates(recurrent).T[None], biases)
        for constant, array in zip(names, arrays, strict=True):
            constants.append(numpy_helper.from_array(np.ascontiguousarray(array), constant))
        outputs = [f"y{number}", f"h{number}"]
        nodes.append(helper.make_node("LSTM", [x, *names], outputs, hidden_size=layer.units))
        if layer.return_sequences:
            # (steps, directions, batch, units) without the directions
            nodes.append(helper.make_node("Squeeze", [outputs[0], "one"], [f"s{number}"]))
            x = f"s{number}"
        else:
            nodes.append(helper.make_node("Squeeze", [outputs[1], "zero"], ["y"]))
    constants += [numpy_helper.from_array(np.array([i]), n) for i, n in enumerate(("zero", "one"))]
    steps, width = _inference_models.NETWORKS["lstm"].shape
    graph = helper.make_graph(
        nodes,
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, steps, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, layer.units])],
        constants,
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _gates(weight):
    """Reorders gates from Keras's order (input, forget, cell, output) to ONNX's."""
    i, f, c, o = np.split(weight, 4, axis=-1)
    return np.concatenate([i, o, f, c], axis=-1)


if __name__ == "__main__":
    serve(
        write_weights,
        write_tflite,
        write_tflite_int8,
        write_onnx,
        write_onnx_int8,
        write_openvino_int8,
        count_onnx_operations,
    )
