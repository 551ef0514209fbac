"""What LiteRT (TensorFlow Lite) does with zeros: those its file saves and those it skips.

The file: TensorFlow's converter stores a weight of rank 2 or 4 sparsely if 30 % or more of it are
zero. Execution: 1x1 convolutions by XNNPACK, under its rules; and Dense kernels whose zeros come
in blocks of 4 inputs, by LiteRT's own kernel, on any processor.
(The converter's rules are those of tensorflow/compiler/mlir/lite/transforms/dense_to_sparse.cc.)
"""

import numpy as np
from keras import layers

from keras_trim.checks import xnnpack
from keras_trim.checks.graph import has_graph
from keras_trim.checks.report import DeploymentReport
from keras_trim.checks.weights import kernels

_MIN_STORED = 0.3
_BLOCK = 4
# The share of a kernel's zeros that must lie in whole blocks.
_MIN_IN_BLOCKS = 0.9
# Measured on x86, one thread (benchmarks/deployment.py): dense is faster below 75 to 80 % zeros in
# batches of 8; at a batch of one, which is bound by memory, sparse is faster earlier.
_MIN_FASTER = 0.75
_NOT_STORED = (layers.Embedding, layers.Conv3D, layers.Conv3DTranspose)
_NOTES = [
    "1x1 convolutions: by XNNPACK, on ARM, WebAssembly, RISC-V and Hexagon, and on x86 only "
    "without AVX; Dense kernels in blocks: on every processor, in float32",
    "the file is smaller where zeros are stored sparsely, even if they are not skipped",
]


def check(model):
    """Checks a model against LiteRT's rules; see `keras_trim.check`."""
    notes, obstacles, by_path = list(_NOTES), [], {}
    if has_graph(model):
        report = xnnpack.check(model)
        obstacles = report.obstacles
        by_path = {row.path: (row.rule, row.cure) for row in report.rows}
    else:
        notes.append(
            "this model has no graph that could be read (it is subclassed), so its 1x1 "
            "convolutions are taken to run densely"
        )
    rows = []
    for weight in kernels(model):
        is_sparse = None
        if isinstance(weight.layer, (layers.Dense, layers.EinsumDense)):
            rule, cure, is_sparse = _dense_rule(weight)
        elif xnnpack.is_1x1_convolution(weight.layer):
            rule, cure = by_path.get(weight.variable.path, ("the model's graph is unknown", None))
        else:
            rule = "zeros are skipped in 1x1 Conv2D layers and Dense layers in blocks only"
            cure = None
        rows.append(weight.check(rule, cure, is_sparse, _is_stored_sparsely(weight)))
    if not any(xnnpack.is_1x1_convolution(weight.layer) for weight in kernels(model)):
        obstacles = []  # of convolutions that are not there
    return DeploymentReport("litert", rows, obstacles, notes)


def _dense_rule(weight):
    """The rule that a Dense kernel breaks, its cure, and whether it is run sparsely anyway."""
    if weight.variable.name != "kernel":
        return "only kernels are run sparsely", None, False
    if weight.sparsity < _MIN_STORED:
        return "it has few zeros, or none", None, False
    if _zeros_in_blocks(weight.matrices) < _MIN_IN_BLOCKS * weight.zeros:
        return (
            f"the zeros of a Dense kernel must come in blocks of {_BLOCK} inputs",
            f"prune it with block_size=({_BLOCK}, 1)",
            False,
        )
    if weight.sparsity < _MIN_FASTER:
        return (
            f"below {_MIN_FASTER:.0%} zeros that may be slower than running it densely",
            f"prune it to {_MIN_FASTER:.0%} or more, or not in blocks",
            True,
        )
    return None, None, True


def _zeros_in_blocks(matrices):
    """Integer: zeros in whole blocks of inputs; those at an edge are padded with zeros."""
    stack, inputs, outputs = matrices.shape
    padding = -inputs % _BLOCK
    padded = np.pad(matrices != 0, ((0, 0), (0, padding), (0, 0)))
    blocks = padded.reshape(stack, -1, _BLOCK, outputs).any(axis=2)
    return int(np.count_nonzero(~blocks)) * _BLOCK


def _is_stored_sparsely(weight):
    return weight.sparsity >= _MIN_STORED and not isinstance(weight.layer, _NOT_STORED)
