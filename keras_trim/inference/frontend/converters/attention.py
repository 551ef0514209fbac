"""Converts products of two activations. A trace turns attention layers into these."""

import string

import keras
import numpy as np
from keras import layers

from keras_trim.inference.frontend.converters.core import dense_einsum
from keras_trim.inference.frontend.converters.indexing import reshape
from keras_trim.inference.frontend.converters.registry import (
    array,
    converts,
    keras_operations,
    only,
)
from keras_trim.inference.ir import operations


def _is_weight(x, reader):
    return not isinstance(x, reader.symbol)


@converts(*keras_operations("numpy", "Einsum"))
def _einsum(operation, reader, *operands, **kwargs):
    only(len(operands) == 2 and not kwargs, "its operands")
    equation = operation.subscripts.replace(" ", "")
    x, y = operands
    if _is_weight(y, reader):
        return dense_einsum(reader, equation, x, array(y))
    only(not _is_weight(x, reader) and "." not in equation and "->" in equation, "its equation")
    inputs, out = equation.split("->")
    return add_einsum(reader, *inputs.split(","), out, x, y)


def add_einsum(reader, x_labels, y_labels, out_labels, x, y):
    is_plain = (
        all(len(set(labels)) == len(labels) for labels in (x_labels, y_labels, out_labels))
        and all((a in y_labels) or (a in out_labels) for a in x_labels)
        and all((a in x_labels) or (a in out_labels) for a in y_labels)
        and all((a in x_labels) or (a in y_labels) for a in out_labels)
    )
    only(is_plain and len(x.shape) == len(x_labels), "its equation")
    only(len(y.shape) == len(y_labels), "its equation")
    sizes = dict(zip(x_labels, x.shape, strict=True))
    same = all(sizes.get(a, n) == n for a, n in zip(y_labels, y.shape, strict=True))
    only(same, "sizes of 1 that are repeated")
    return reader.add(operations.Einsum(x_labels, y_labels, out_labels), [x, y], reader.name)


@converts(*keras_operations("numpy", "Matmul"))
def _matmul(operation, reader, x, y):
    only(not _is_weight(x, reader), "weights on the left")
    if _is_weight(y, reader):
        kernel = array(y)
        only(kernel.ndim == 2 and len(x.shape) > 1, "vectors")
        dense = operations.Dense(kernel, np.zeros(kernel.shape[1], np.float32))
        return reader.add(dense, [x], reader.name)
    rank = len(x.shape)
    only(2 < rank == len(y.shape), "its ranks")
    batch = string.ascii_lowercase[: rank - 2]
    return add_einsum(reader, batch + "xk", batch + "ky", batch + "xy", x, y)


@converts(layers.Dot)
def _dot(layer, reader, inputs):
    x, y = inputs
    only(not layer.normalize, "normalized vectors")
    axes = (layer.axes,) * 2 if isinstance(layer.axes, int) else layer.axes
    a, b = axes[0] % len(x.shape), axes[1] % len(y.shape)
    only(a > 0 and b > 0, "the batch axis")
    x_labels = "z" + string.ascii_lowercase[: len(x.shape) - 1]
    y_labels = "z" + string.ascii_lowercase[10 : 10 + len(y.shape) - 1]
    y_labels = y_labels.replace(y_labels[b], x_labels[a])
    out = x_labels.replace(x_labels[a], "") + y_labels[1:].replace(x_labels[a], "")
    product = add_einsum(reader, x_labels, y_labels, out, x, y)
    return product if len(out) > 1 else reshape(reader, product, (1,))


@converts(*keras_operations("nn", "DotProductAttention"))
def _attention(operation, reader, query, key, value, bias=None, mask=None, scale=None):
    only(bias is None and getattr(operation, "attn_logits_soft_cap", None) is None, "a bias")
    only(all(isinstance(z, reader.symbol) for z in (query, key, value)), "an array")
    only(query.shape[2:] == key.shape[2:] and len(query.shape) == 4, "shared heads")
    only(key.shape[2] == value.shape[2], "shared heads")
    only(query.shape[0] == key.shape[0] == value.shape[0], "a shared batch")
    inputs = [query, key, value]
    if mask is not None:
        if _is_weight(mask, reader):
            mask = np.asarray(keras.ops.convert_to_numpy(mask)).astype(np.float32)
            mask = reader.add_constant(mask)
        inputs.append(mask)
    scale = None if scale is None else float(scale)
    attention = operations.Attention(scale, bool(operation.is_causal))
    return reader.add(attention, inputs, reader.name)
