"""Checks the ONNX file. ONNX Runtime multiplies by zeros; the file shows how they are stored."""

from keras_trim.compatibility.report import DeploymentReport
from keras_trim.compatibility.weights import kernels

_RULE = "ONNX Runtime has no kernel that skips zeros"
_CURE = "run it with keras_trim.inference, or export to LiteRT"
_NOTES = ["zeros are stored like other numbers: compress the file to send it"]


def check(model):
    """Checks the ONNX file of a model; see `keras_trim.check`."""
    import onnx

    from keras_trim.exporters import make_file

    graph = onnx.load_from_string(make_file(model, "onnx").data).graph
    sparse = [tuple(tensor.dims) for tensor in graph.sparse_initializer]
    rows = [
        weight.check(
            _RULE,
            _CURE if weight.zeros else None,
            False,
            tuple(weight.variable.shape) in sparse,
        )
        for weight in kernels(model)
    ]
    return DeploymentReport("onnx", rows, notes=list(_NOTES))
