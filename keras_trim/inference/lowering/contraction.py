"""Products of activations with activations, and reductions, by NumPy, which calls BLAS."""

import functools
import math

import numpy as np

from keras_trim.inference.ir.operations.contraction import Attention, Einsum, Reduce
from keras_trim.inference.ir.validation import require
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.program.tensors import Tensor

_MASKED = np.float32(-0.7 * np.finfo(np.float32).max)  # Keras's logit of masked positions


@lowers(Einsum)
def _lower_einsum(op, builder, x, y):
    require(
        len(x.shape) == len(op.x_labels) and len(y.shape) == len(op.y_labels),
        "a product of other axes",
    )
    sizes = dict(zip(op.x_labels, x.shape, strict=True))
    for label, size in zip(op.y_labels, y.shape, strict=True):
        require(sizes.setdefault(label, size) == size, "a product of axes of other sizes")
    out = Tensor([sizes[label] for label in op.out_labels], "NHWC")
    builder.label("NumPy")
    builder.host(functools.partial(_product, op), [x, y], [out], memory=x.size + y.size + out.size)
    return out


def _product(op, x, y, out):
    both = [a for a in op.x_labels if a in op.y_labels]
    batch = [a for a in both if a in op.out_labels]
    inner = [a for a in both if a not in op.out_labels]
    x_free = [a for a in op.x_labels if a not in both]
    y_free = [a for a in op.y_labels if a not in both]
    a = _matrices(x, op.x_labels, batch, x_free, inner)
    b = _matrices(y, op.y_labels, batch, inner, y_free)
    sizes = dict(zip(op.x_labels + op.y_labels, x.shape + y.shape, strict=True))
    labels = [*batch, *x_free, *y_free]
    product = np.matmul(a, b).reshape([sizes[label] for label in labels])
    np.copyto(out, product.transpose([labels.index(label) for label in op.out_labels]))


def _matrices(x, labels, batch, rows, columns):
    """Returns x as a batch of matrices, (batch, rows, columns)."""
    order = [labels.index(label) for label in (*batch, *rows, *columns)]
    sizes = [
        int(np.prod([x.shape[labels.index(label)] for label in group]))
        for group in (batch, rows, columns)
    ]
    return x.transpose(order).reshape(sizes)


@lowers(Attention)
def _lower_attention(op, builder, query, key, value, mask=None):
    require(len(query.shape) == len(key.shape) == len(value.shape) == 4, "attention's axes")
    batch, queries, heads, width = query.shape
    keys = key.shape[1]
    require(
        key.shape == (batch, keys, heads, width)
        and value.shape[:3] == key.shape[:3]
        and (width or op.scale is not None),
        "attention's sizes",
    )
    logits = (batch, heads, queries, keys)
    if mask is not None:
        require(np.broadcast_shapes(mask.shape, logits) == logits, "attention's mask is too large")
    out = Tensor((*query.shape[:-1], value.shape[-1]), "NHWC")
    builder.label("NumPy")
    inputs = [query, key, value] if mask is None else [query, key, value, mask]
    memory = 3 * math.prod(logits) + query.size + out.size
    builder.host(functools.partial(_attend, op), inputs, [out], memory)
    return out


def _attend(op, query, key, value, *rest):
    *mask, out = rest
    scale = query.shape[-1] ** -0.5 if op.scale is None else op.scale
    heads_first = (0, 2, 1, 3)
    query = query.transpose(heads_first) * np.float32(scale)
    logits = query @ key.transpose(0, 2, 3, 1)
    visible = mask[0] != 0 if mask else None
    if op.is_causal:
        causal = np.tri(*logits.shape[-2:], dtype=bool)
        visible = causal if visible is None else visible & causal
    if visible is not None:
        logits = np.where(visible, logits, _MASKED)
    logits -= logits.max(-1, keepdims=True, initial=-np.inf)
    np.exp(logits, out=logits)
    logits /= logits.sum(-1, keepdims=True)
    np.copyto(out, (logits @ value.transpose(heads_first)).transpose(heads_first))


@lowers(Reduce)
def _lower_reduce(op, builder, x):
    require(all(axis < len(x.shape) for axis in op.axes), "a reduction of other axes")
    has_places = all(x.shape[axis] for axis in op.axes)
    require(has_places or op.function in ("mean", "sum"), "the maximum of nothing")
    shape = [
        1 if axis in op.axes else n
        for axis, n in enumerate(x.shape)
        if op.keepdims or axis not in op.axes
    ]
    y = Tensor(shape, "NHWC")
    function, axes, keepdims = getattr(np, op.function), op.axes, op.keepdims
    builder.label("NumPy")
    builder.host(lambda a, out: function(a, axis=axes, keepdims=keepdims, out=out), [x], [y])
    return y
