"""Writes OpenVINO's intermediate representation: an `.xml` file, and a `.bin` with the weights.

OpenVINO reads the ONNX file that PyTorch's exporter makes, so this runs under the torch backend.
"""

import pathlib
import tempfile

from keras_trim.exporters import onnx
from keras_trim.exporters.verification import Converted, one_example, verify

BACKEND = "torch"
RUNTIME = "OpenVINO"
PACKAGES = ("openvino", *onnx.PACKAGES)
_HALF_TOLERANCE = 0.02  # for weights in float16


def convert(model, cases, weights=None, names=None):
    """Converts a model under the torch backend. Takes and raises the same as `onnx.convert`.

    Returns:
        `Converted`, with the bytes of two files, `".xml"` and `".bin"`.
    """
    made = onnx.convert(model, cases, names=names)
    files = _intermediate_representation(made.data, weights == "float16")
    cases = one_example(cases) if made.batch_size else cases
    tolerance = {"tolerance": _HALF_TOLERANCE} if weights else {}
    error = verify(runner(files), cases, RUNTIME, **tolerance)
    return Converted(files, False, made.batch_size, error, made.warnings)


def trial(model, cases):
    """Returns a file's outputs for each case."""
    run = runner(_intermediate_representation(onnx.make(model), False))
    return [run(case.inputs) for case in cases]


def _intermediate_representation(data, in_half):
    import openvino

    with tempfile.TemporaryDirectory(prefix="keras_trim_") as folder:
        source, path = pathlib.Path(folder, "model.onnx"), pathlib.Path(folder, "model.xml")
        source.write_bytes(data)
        network = openvino.convert_model(source)
        openvino.save_model(network, path, compress_to_fp16=in_half)
        return {ending: path.with_suffix(ending).read_bytes() for ending in (".xml", ".bin")}


def runner(files):
    """Returns the files as a function of arrays, in the order of the model's inputs."""
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory(prefix="keras_trim_") as folder:
        for ending, data in files.items():
            pathlib.Path(folder, f"model{ending}").write_bytes(data)
        # By default OpenVINO rounds to bfloat16 if the processor has instructions for it.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        network = core.compile_model(pathlib.Path(folder, "model.xml"), "CPU", settings)
    request = network.create_infer_request()

    def run(inputs):
        found = request.infer(dict(enumerate(inputs)))
        return [found[output].copy() for output in network.outputs]

    return run
