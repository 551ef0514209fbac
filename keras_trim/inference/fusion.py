"""Rewrites of a graph that leave fewer operations: what follows a product is done in its store."""

import dataclasses

import numpy as np

from keras_trim.inference.operations import (
    Activation,
    Binary,
    Convolution,
    Dense,
    DepthwiseConvolution,
    Pad,
    Pool,
    ScaleChannels,
)
from keras_trim.inference.transposes import cancel_permutations, drop_unused

_PRODUCTS = (Convolution, Dense, DepthwiseConvolution)


def fuse(graph):
    """A graph that computes the same with fewer operations.

    - Padding becomes that of the convolution or maximum behind it.
    - A scale and shift (batch normalization, or of all numbers) goes into the weights before it.
    - A sum with another tensor goes into the convolution before it.
    - A clip (ReLU) goes into the product, or the pooling, before it.
    - A mean over windows and a 1x1 convolution change places if that leaves less to compute.
    - Axes that are moved and moved back stay where they are.
    """
    graph = dataclasses.replace(graph, nodes=[dataclasses.replace(n) for n in graph.nodes])
    graph = cancel_permutations(drop_unused(graph))
    for rewrite in (_fold_padding, _fold_scale, _order_means, _fold_residual, _fold_clip):
        graph = rewrite(graph)
    return graph


def _only_use(uses, value):
    """The one node that takes a value, or None."""
    nodes = uses.get(value, [])
    return nodes[0] if len(nodes) == 1 else None


def _without(graph, removed, renamed):
    """The graph without some nodes, and with some values renamed."""

    def name(value):
        while value in renamed:
            value = renamed[value]
        return value

    nodes = []
    for node in graph.nodes:
        if any(node is other for other in removed):
            continue
        node.inputs = [name(value) for value in node.inputs]
        nodes.append(node)
    return dataclasses.replace(graph, nodes=nodes, outputs=[name(value) for value in graph.outputs])


def _fold_padding(graph):
    uses, removed, renamed = graph.uses(), [], {}
    for node in graph.nodes:
        user = _only_use(uses, node.outputs[0])
        if (
            isinstance(node.operation, Pad)
            and all(n >= 0 for pair in node.operation.amounts for n in pair)
            and user is not None
            and _takes_padding(user.operation, node.operation.value)
        ):
            amounts = node.operation.amounts
            changes = {"padding": ("valid", *amounts) if len(amounts) == 1 else tuple(amounts)}
            if isinstance(user.operation, Pool):
                changes["outside"] = node.operation.value
            user.operation = dataclasses.replace(user.operation, **changes)
            removed.append(node)
            renamed[node.outputs[0]] = node.inputs[0]
    return _without(graph, removed, renamed)


def _takes_padding(operation, value):
    if isinstance(operation, Pool):
        return operation.is_max and set(operation.padding) == {"valid"}
    return (
        isinstance(operation, Convolution | DepthwiseConvolution)
        and value == 0
        and set(operation.padding) == {"valid"}
        and getattr(operation, "spread", (1, 1)) == (1, 1)
    )


def _fold_scale(graph):
    uses, producers = graph.uses(), graph.producers()
    removed, renamed = [], {}
    for node in graph.nodes:
        is_affine = isinstance(node.operation, Activation) and node.operation.function == "affine"
        if not is_affine and not isinstance(node.operation, ScaleChannels):
            continue
        value = renamed.get(node.inputs[0], node.inputs[0])
        source = producers.get(value)
        if (
            source is None
            or not isinstance(source.operation, _PRODUCTS)
            or _only_use(uses, node.inputs[0]) is None
            or _is_clipped(source.operation)
        ):
            continue
        operation = source.operation
        if is_affine:
            ones = np.ones_like(operation.bias)
            scale, shift = node.operation.a * ones, node.operation.b * ones
        else:
            scale, shift = node.operation.scale, node.operation.shift
        shape = scale.reshape(operation.kernel.shape[-2:]) if isinstance(
            operation, DepthwiseConvolution
        ) else scale  # fmt: skip
        source.operation = dataclasses.replace(
            operation,
            kernel=(operation.kernel * shape).astype(np.float32),
            bias=(operation.bias * scale + shift).astype(np.float32),
        )
        removed.append(node)
        renamed[node.outputs[0]] = value
    return _without(graph, removed, renamed)


def _is_clipped(operation):
    return operation.low > -np.inf or operation.high < np.inf


def _order_means(graph):
    uses = graph.uses()
    for first in graph.nodes:
        second = _only_use(uses, first.outputs[0])
        if second is None:
            continue
        is_mean_first = _is_mean(first.operation) and _is_pointwise(second.operation)
        if not is_mean_first and not (
            _is_pointwise(first.operation) and _is_mean(second.operation)
        ):
            continue
        mean, convolution = (first, second) if is_mean_first else (second, first)
        *_, inputs, outputs = convolution.operation.kernel.shape
        has_strides = tuple(mean.operation.strides) != (1, 1)
        user = _only_use(uses, second.outputs[0])
        takes_sum = user is not None and isinstance(user.operation, Binary)
        if is_mean_first:  # of fewer channels, but a sum can go into the convolution
            changes = not has_strides and inputs * convolution.operation.groups > outputs
            changes = changes and not takes_sum
        else:  # products of fewer pixels
            changes = has_strides
        if changes:
            first.operation, second.operation = second.operation, first.operation
            first.name, second.name = second.name, first.name
    return graph


def _is_mean(operation):
    """Whether it is the mean of windows, each of which has a pixel."""
    return (
        isinstance(operation, Pool)
        and not operation.is_max
        and set(operation.padding) <= {"valid", "same"}
    )


def _is_pointwise(operation):
    """Whether it is a linear function of each pixel for itself."""
    return (
        isinstance(operation, Convolution)
        and tuple(operation.window) == (1, 1)
        and operation.strides == operation.spread == (1, 1)
        and all(padding in ("valid", "same", "causal", (0, 0)) for padding in operation.padding)
        and not operation.residual
        and not _is_clipped(operation)
    )


def _fold_residual(graph):
    uses, producers = graph.uses(), graph.producers()
    position = {id(node): i for i, node in enumerate(graph.nodes)}
    removed, renamed = [], {}
    for node in graph.nodes:
        if not (isinstance(node.operation, Binary) and node.operation.function == "add"):
            continue
        # The later of the two inputs can take the other one along.
        candidates = []
        for value, other in (node.inputs, node.inputs[::-1]):
            source = producers.get(value)
            other_source = producers.get(renamed.get(other, other))
            if (
                source is not None
                and isinstance(source.operation, Convolution)
                and not source.operation.residual
                and not _is_clipped(source.operation)
                and _only_use(uses, value) is not None
                and value != other
                and (other_source is None or position[id(other_source)] < position[id(source)])
            ):
                candidates.append((position[id(source)], source, value, other))
        if not candidates:
            continue
        _, source, value, other = max(candidates, key=lambda c: c[0])
        if node.operation.is_broadcast:
            continue
        source.operation = dataclasses.replace(source.operation, residual=True)
        source.inputs = [*source.inputs, other]
        removed.append(node)
        renamed[node.outputs[0]] = value
    return _without(graph, removed, renamed)


def _fold_clip(graph):
    uses, producers = graph.uses(), graph.producers()
    removed, renamed = [], {}
    for node in graph.nodes:
        if not (isinstance(node.operation, Activation) and node.operation.function == "clip"):
            continue
        value = renamed.get(node.inputs[0], node.inputs[0])
        source = producers.get(value)
        if (
            source is None
            or not isinstance(source.operation, (*_PRODUCTS, Pool))
            or _only_use(uses, node.inputs[0]) is None
            or _is_clipped(source.operation)
        ):
            continue
        source.operation = dataclasses.replace(
            source.operation, low=node.operation.a, high=node.operation.b
        )
        removed.append(node)
        renamed[node.outputs[0]] = value
    return _without(graph, removed, renamed)
