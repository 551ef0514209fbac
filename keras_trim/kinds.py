"""Classifies a weight by its layer, name and shape: whether to prune it and why not; its axes."""

import dataclasses
import re

import keras

from keras_trim.patterns import MatrixView

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_TABLE = re.compile(r"(^|_)embeddings?(_\d+)?$")
_KERNEL = re.compile(r"(^|_)kernel(_\d+)?$")
_FEW = re.compile(
    r"(^|_)(bias(es)?|scales?|gamma|beta|alpha|tokens?|masks?|encodings?|pos(itions?|itional)?)(_|$)"
)
# Common names of matrices that other weights have, too, so the shape must agree. `variable` and
# `variable_1` are the names Keras gives to unnamed weights.
_PERHAPS_MATRIX = re.compile(
    r"^(variable|w(_?[a-z0-9])?|(.*_)?(weights?|matrix|dense|proj(ection)?|experts?))(_\d+)?$",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Why the rule does not prune a weight.

    Args:
        reason: String.
        is_by_design: Bool. False if the weight may well be a matrix but the rule cannot tell.
    """

    reason: str
    is_by_design: bool = True


def why_not(layer, variable):
    """Applies the rule: returns `None` if a weight should be pruned, otherwise a `LeftOut`.

    Args:
        layer: The innermost Keras layer that holds the weight.
        variable: The Keras variable.
    """
    if not keras.backend.is_float_dtype(variable.dtype):
        return LeftOut(f"dtype {variable.dtype} is not a float")
    if 0 in variable.shape:
        return LeftOut("it has no elements")
    rank, name = len(variable.shape), variable.name
    if rank < 2:
        return LeftOut(f"rank {rank}: biases and scales are few and matter")
    # Frozen layers keep their weights in the list of trainable variables.
    if all(variable is not own for own in layer._trainable_variables):
        return LeftOut("made with trainable=False: a constant, or state")
    if isinstance(layer, keras.layers.STFTSpectrogram):
        return LeftOut("the Fourier transform, of which each weight is known")
    if name.startswith("lora_"):
        return LeftOut("LoRA's factors are few and matter")
    if _is_depthwise(layer, variable):
        return LeftOut("depthwise kernel: few weights, each of them matters")
    if _KERNEL.search(name) or _TABLE.search(name):
        return None
    if _FEW.search(name):
        return LeftOut("biases, scales, tokens and positions are few and matter")
    if not _has_shape_of_matrix(layer, variable):
        return LeftOut(f"shape {tuple(variable.shape)} is that of no matrix: it is broadcast")
    if _PERHAPS_MATRIX.search(name):
        return None
    return LeftOut(
        "its name does not tell that it is a matrix; to prune it, name it 'kernel', or return it "
        "from get_prunable_weights()",
        is_by_design=False,
    )


def _is_depthwise(layer, variable):
    has_one_input_per_group = (
        getattr(layer, "groups", 1) > 1 and variable.name == "kernel" and variable.shape[-2] == 1
    )
    return isinstance(layer, _DEPTHWISE) or "depthwise" in variable.name or has_one_input_per_group


def _has_shape_of_matrix(layer, variable):
    """Whether each matrix of a stack has several inputs.

    Shapes like `(1, positions, features)` are added to a batch. `(height, width, channels, 1)` is a
    depthwise kernel. `(1, 1, inputs, outputs)` is the kernel of a 1x1 convolution.
    """
    shape = tuple(variable.shape)
    if _torch_module(layer, variable) is not None:
        return matrix_view(layer, variable).shape(shape)[1] > 1
    if len(shape) <= 3:
        return min(shape[:-1]) > 1
    stack = shape[:-2]
    return min(shape[-2:]) > 1 and (min(stack) > 1 or max(stack) == 1)


def is_table(layer, variable):
    """Whether a weight is a table of rows to look up, so no axis of it is summed over."""
    module = _torch_module(layer, variable)
    if module is not None:
        return type(module).__name__.startswith("Embedding")
    # The reverse weight of a `ReversibleEmbedding` is a kernel: its product makes the logits.
    return _TABLE.search(variable.name) is not None and not variable.name.startswith("reverse_")


def matrix_view(layer, variable):
    """Returns how to read a layer's weight as matrices of (inputs, outputs)."""
    rank = len(variable.shape)
    if isinstance(layer, _TRANSPOSED) and variable.name == "kernel":
        return MatrixView(tuple(range(rank - 2)), (rank - 1,), (rank - 2,))
    if isinstance(layer, keras.layers.EinsumDense) and variable.name == "kernel":
        operands, output = layer.equation.replace(" ", "").split("->")
        data, kernel = (labels.replace("...", "") for labels in operands.split(","))
        inputs = tuple(i for i, label in enumerate(kernel) if label not in output)
        stack = tuple(i for i, label in enumerate(kernel) if label in output and label in data)
        outputs = tuple(i for i in range(rank) if i not in inputs + stack)
        return MatrixView(stack, inputs, outputs)
    module = _torch_module(layer, variable)
    if module is not None and rank >= 2 and not is_table(layer, variable):
        inputs, outputs = (0, 1) if "Transpose" in type(module).__name__ else (1, 0)
        return MatrixView(tuple(range(2, rank)), (inputs,), (outputs,))
    return MatrixView.default(rank)


def _torch_module(layer, variable):
    """Returns the PyTorch module that holds a `TorchModuleWrapper`'s weight, otherwise `None`."""
    if not isinstance(layer, keras.layers.TorchModuleWrapper):
        return None
    for module in layer.module.modules():
        if any(own is variable.value for own in module.parameters(recurse=False)):
            return module
    return None
