"""Products of two activations, and reductions over axes. NumPy runs them, with BLAS."""

import dataclasses

from keras_trim.inference.ir.operations.base import Operation
from keras_trim.inference.ir.validation import require, require_integers


@dataclasses.dataclass
class Einsum(Operation):
    """A sum of products of two tensors. A tensor may have each label only once.

    Args:
        x_labels, y_labels, out_labels: Strings, one letter per axis.
    """

    arity = (2, 2)

    x_labels: str
    y_labels: str
    out_labels: str

    def check(self):
        labels = (self.x_labels, self.y_labels, self.out_labels)
        require(all(len(set(part)) == len(part) for part in labels), "a label twice in a tensor")
        x_labels, y_labels, out_labels = map(set, labels)
        require(out_labels <= x_labels | y_labels, "an unknown label")
        require(x_labels ^ y_labels <= out_labels, "a sum over an axis of one tensor")


@dataclasses.dataclass
class Attention(Operation):
    """softmax(scale * query . key) . value per head; an optional fourth input, 0 where masked.

    Args:
        scale: Float, or None for one over the square root of the width of a head.
        is_causal: Boolean. Whether a position sees only itself and earlier ones.
    """

    arity = (3, 4)

    scale: float | None
    is_causal: bool = False


@dataclasses.dataclass
class Reduce(Operation):
    """Sum, mean, maximum or minimum over some axes.

    Args:
        function: String, the name of NumPy's function.
        axes: Tuple of integers.
        keepdims: Boolean.
    """

    function: str
    axes: tuple
    keepdims: bool

    def check(self):
        require(self.function in ("mean", "max", "min", "sum"), f"no function {self.function!r}")
        require_integers(self.axes, None, 0)
        require(len(set(self.axes)) == len(self.axes), "an axis twice")
