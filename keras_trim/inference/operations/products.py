"""Products of activations with activations, and sums over axes: NumPy's, which call BLAS."""

import dataclasses
import math

import numpy as np

from keras_trim.inference.operations.base import Operation, require, require_integers
from keras_trim.inference.tensors import Tensor

_MASKED = np.float32(-0.7 * np.finfo(np.float32).max)  # Keras's logit of what is masked


@dataclasses.dataclass
class Einsum(Operation):
    """A sum of products of two tensors, each label once in a tensor.

    Args:
        x_labels, y_labels, out_labels: Strings, a letter per axis.
    """

    x_labels: str
    y_labels: str
    out_labels: str

    def check(self):
        labels = (self.x_labels, self.y_labels, self.out_labels)
        require(all(len(set(part)) == len(part) for part in labels), "a label twice in a tensor")
        x_labels, y_labels, out_labels = map(set, labels)
        require(out_labels <= x_labels | y_labels, "an unknown label")
        require(x_labels ^ y_labels <= out_labels, "a sum over an axis of one tensor")

    def lower(self, builder, x, y):
        require(
            len(x.shape) == len(self.x_labels) and len(y.shape) == len(self.y_labels),
            "a product of other axes",
        )
        sizes = dict(zip(self.x_labels, x.shape, strict=True))
        for label, size in zip(self.y_labels, y.shape, strict=True):
            require(sizes.setdefault(label, size) == size, "a product of axes of other sizes")
        out = Tensor([sizes[label] for label in self.out_labels], "rows")
        builder.choose("NumPy")
        builder.host(self._product, [x, y], [out], memory=x.size + y.size + out.size)
        return out

    def _product(self, x, y, out):
        both = [a for a in self.x_labels if a in self.y_labels]
        batch = [a for a in both if a in self.out_labels]
        inner = [a for a in both if a not in self.out_labels]
        x_free = [a for a in self.x_labels if a not in both]
        y_free = [a for a in self.y_labels if a not in both]
        a = _matrices(x, self.x_labels, batch, x_free, inner)
        b = _matrices(y, self.y_labels, batch, inner, y_free)
        sizes = dict(zip(self.x_labels + self.y_labels, x.shape + y.shape, strict=True))
        labels = [*batch, *x_free, *y_free]
        product = np.matmul(a, b).reshape([sizes[label] for label in labels])
        np.copyto(out, product.transpose([labels.index(label) for label in self.out_labels]))


def _matrices(x, labels, batch, rows, columns):
    """x as a batch of matrices, (batch, rows, columns)."""
    order = [labels.index(label) for label in (*batch, *rows, *columns)]
    sizes = [
        int(np.prod([x.shape[labels.index(label)] for label in group]))
        for group in (batch, rows, columns)
    ]
    return x.transpose(order).reshape(sizes)


@dataclasses.dataclass
class Attention(Operation):
    """softmax(scale * query . key) . value per head; a third input masks pairs that it has 0 for.

    Args:
        scale: Float, or None for one over the square root of the width of a head.
        is_causal: Boolean. Whether a place sees only those before it and itself.
    """

    scale: float | None
    is_causal: bool = False

    def lower(self, builder, query, key, value, mask=None):
        require(len(query.shape) == len(key.shape) == len(value.shape) == 4, "attention's axes")
        batch, queries, heads, width = query.shape
        keys = key.shape[1]
        require(
            key.shape == (batch, keys, heads, width)
            and value.shape[:3] == key.shape[:3]
            and (width or self.scale is not None),
            "attention's sizes",
        )
        logits = (batch, heads, queries, keys)
        if mask is not None:
            require(
                np.broadcast_shapes(mask.shape, logits) == logits, "attention's mask is too large"
            )
        out = Tensor((*query.shape[:-1], value.shape[-1]), "rows")
        builder.choose("NumPy")
        inputs = [query, key, value] if mask is None else [query, key, value, mask]
        memory = 3 * math.prod(logits) + query.size + out.size
        builder.host(self._attend, inputs, [out], memory)
        return out

    def _attend(self, query, key, value, *rest):
        *mask, out = rest
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        heads_first = (0, 2, 1, 3)
        query = query.transpose(heads_first) * np.float32(scale)
        logits = query @ key.transpose(0, 2, 3, 1)
        visible = mask[0] != 0 if mask else None
        if self.is_causal:
            causal = np.tri(*logits.shape[-2:], dtype=bool)
            visible = causal if visible is None else visible & causal
        if visible is not None:
            logits = np.where(visible, logits, _MASKED)
        logits -= logits.max(-1, keepdims=True, initial=-np.inf)
        np.exp(logits, out=logits)
        logits /= logits.sum(-1, keepdims=True)
        np.copyto(out, (logits @ value.transpose(heads_first)).transpose(heads_first))


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

    def lower(self, builder, x):
        require(all(axis < len(x.shape) for axis in self.axes), "a reduction of other axes")
        has_places = all(x.shape[axis] for axis in self.axes)
        require(has_places or self.function in ("mean", "sum"), "the maximum of nothing")
        shape = [
            1 if axis in self.axes else n
            for axis, n in enumerate(x.shape)
            if self.keepdims or axis not in self.axes
        ]
        y = Tensor(shape, "rows")
        function, axes, keepdims = getattr(np, self.function), self.axes, self.keepdims
        builder.choose("NumPy")
        builder.host(lambda a, out: function(a, axis=axes, keepdims=keepdims, out=out), [x], [y])
        return y
