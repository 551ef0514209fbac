"""Checks which layers NVIDIA's sparse tensor cores run sparsely: those whose pattern is 2:4.

At most two of every four consecutive inputs (weights along the reduction axis) may be nonzero, and
matrix sizes must be multiples of 16.
(Mishra et al., "Accelerating sparse deep neural networks", https://arxiv.org/abs/2104.08378. Sizes
and dtypes are from the documentation of cuSPARSELt: structured matrices, float16 and bfloat16.)
"""

import numpy as np
from keras import layers

from keras_trim.compatibility.report import DeploymentReport
from keras_trim.compatibility.weights import kernels

_SIZE = 16
_LAYERS = (layers.Dense, layers.EinsumDense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
_NOTES = [
    "needs an Ampere GPU or a later one, and float16 or bfloat16 (int8 too, in multiples of 32)",
    "Keras runs these weights densely: deploy with TensorRT, or in PyTorch with "
    "torch.sparse.to_sparse_semi_structured",
]


def check(model):
    """Checks a model against the rules of 2:4 sparsity; see `keras_trim.check`."""
    rows = [weight.check(*_broken_rule(weight)) for weight in kernels(model)]
    return DeploymentReport("nvidia-2:4", rows, notes=list(_NOTES))


def _broken_rule(weight):
    """Returns the rule that a weight breaks and the fix, or `None`, `None`."""
    layer = weight.layer
    if (
        not isinstance(layer, _LAYERS)
        or weight.variable.name != "kernel"
        or getattr(layer, "groups", 1) != 1
    ):
        return "2:4 kernels exist for Dense layers and for convolutions without groups", None
    matrices = weight.matrices
    _, inputs, outputs = matrices.shape
    if inputs % _SIZE or outputs % _SIZE:
        sizes = "units" if isinstance(layer, (layers.Dense, layers.EinsumDense)) else "channels"
        return (
            f"{inputs} inputs and {outputs} outputs are not both multiples of {_SIZE}",
            f"choose multiples of {_SIZE} for the {sizes} of this layer and the one before",
        )
    groups = matrices.reshape(len(matrices), inputs // 4, 4, outputs)
    too_full = int(np.count_nonzero((groups != 0).sum(axis=2) > 2))
    if too_full:
        total = matrices.size // 4
        return (
            f"{too_full:,} of {total:,} groups of 4 inputs have more than 2 non-zero weights",
            "prune with sparsity_m_by_n=(2, 4)",
        )
    return None, None
