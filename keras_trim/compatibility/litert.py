"""Checks what LiteRT (TensorFlow Lite) does with zeros: which it omits in files, which it skips.

The verdict comes from the file that `keras_trim.export` makes: whether a weight is stored sparsely,
and which operation reads it, as stored or converted to dense. Zeros are skipped in two cases.
XNNPACK skips them in 1x1 convolutions, under its rules. And LiteRT's own kernel skips them, on any
processor, in Dense layers that read a weight as stored, in blocks of 4 inputs.
"""

from keras import layers

from keras_trim.compatibility import litert_file, xnnpack
from keras_trim.compatibility.graph import has_graph
from keras_trim.compatibility.report import DeploymentReport, Obstacle
from keras_trim.compatibility.weights import kernels

_MIN_STORED = 0.3
_BLOCK = 4
# Measured on x86, one thread (benchmarks/deployment.py). In batches of 8, dense is faster below
# 75 to 80 % zeros. A batch of one is bound by memory, and sparse is faster earlier.
_MIN_FASTER = 0.75
_DENSE, _CONVOLUTION = "FULLY_CONNECTED", "CONV_2D"
# Operations that XNNPACK can run channels-first, so a cluster may contain them.
_CLUSTER = {
    "ADD",
    "AVERAGE_POOL_2D",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "ELU",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGISTIC",
    "MEAN",
    "MUL",
    "PAD",
    "RELU",
    "RELU6",
    "RESIZE_BILINEAR",
}
_POOLINGS = ("MEAN", "AVERAGE_POOL_2D")
_NOTES = [
    "1x1 convolutions: by XNNPACK, on ARM, WebAssembly, RISC-V and Hexagon, and on x86 only "
    "without AVX; Dense kernels in blocks: on every processor, in float32",
    "the file is smaller where zeros are stored sparsely, even if they are not skipped",
]


def check(model):
    """Checks the LiteRT file of a model; see `keras_trim.check`."""
    weights = kernels(model)
    if all(weight.sparsity < _MIN_STORED for weight in weights):  # no file needed for the verdict
        rule = "it has few zeros, or none"
        rows = [weight.check(rule, None, False, False) for weight in weights]
        return DeploymentReport("litert", rows, notes=list(_NOTES))
    file = litert_file.read(_convert(model))
    obstacles, by_path = _obstacles(model, file)
    rows = []
    for weight in weights:
        stored = file.find(weight.values) if weight.sparsity >= _MIN_STORED else None
        rule, cure, is_sparse = _verdict(weight, stored, by_path, bool(obstacles))
        rows.append(weight.check(rule, cure, is_sparse, bool(stored and stored.is_sparse)))
    if not any(xnnpack.is_1x1_convolution(weight.layer) for weight in weights):
        obstacles = []  # the model has no convolution that they could affect
    return DeploymentReport("litert", rows, obstacles, list(_NOTES))


def _convert(model):
    """Returns the bytes of the file that `export` writes."""
    from keras_trim.exporters import make_file

    return make_file(model, "litert").data


def _obstacles(model, file):
    """Returns the obstacles to XNNPACK running sparsely, and the rules that weights break."""
    if not has_graph(model):
        return [], {}
    report = xnnpack.check(model)
    by_path = {row.path: (row.rule, row.cure) for row in report.rows}
    names = file.operations
    poolings = [i for i, name in enumerate(names) if name in _POOLINGS]
    if report.obstacles or _CONVOLUTION not in names or not poolings:
        return report.obstacles, by_path
    others = [
        name for name in names[names.index(_CONVOLUTION) : poolings[-1]] if name not in _CLUSTER
    ]
    rule = "XNNPACK cannot run this operation of the file channels-first"
    return [Obstacle(None, None, f"{name}: {rule}") for name in dict.fromkeys(others)], by_path


def _verdict(weight, stored, by_path, has_obstacles):
    """Returns the rule that a weight breaks, the fix, and whether it runs sparsely anyway."""
    if weight.sparsity < _MIN_STORED:
        return "it has few zeros, or none", None, False
    if stored is None:
        return (
            "no weight of the file has these zeros: the converter has taken it apart",
            None,
            False,
        )
    if any(reader == _CONVOLUTION for reader, _ in stored.readers):
        return _convolution_verdict(weight, by_path, has_obstacles)
    if {reader for reader, _ in stored.readers} != {_DENSE}:
        return "zeros are skipped in 1x1 Conv2D layers and Dense layers in blocks only", None, False
    if not stored.is_sparse or not all(as_stored for _, as_stored in stored.readers):
        return (
            f"the zeros of a Dense kernel must come in blocks of {_BLOCK} inputs",
            f"prune it with block_size=({_BLOCK}, 1)"
            if isinstance(weight.layer, layers.Dense | layers.EinsumDense)
            else None,
            False,
        )
    if weight.sparsity < _MIN_FASTER:
        return (
            f"below {_MIN_FASTER:.0%} zeros that may be slower than running it densely",
            f"prune it to {_MIN_FASTER:.0%} or more, or not in blocks",
            True,
        )
    return None, None, True


def _convolution_verdict(weight, by_path, has_obstacles):
    if not xnnpack.is_1x1_convolution(weight.layer):
        return "zeros are skipped in 1x1 Conv2D layers and Dense layers in blocks only", None, False
    rule, cure = by_path.get(weight.variable.path, ("the model's graph is unknown", None))
    if rule is None and has_obstacles:
        rule, cure = "an operation of the file is in the way (below)", "change what is in the way"
    return rule, cure, rule is None
