"""Horizontal fusion: computes 1x1 convolutions of the same tensor as one.

In the modules of Inception (Szegedy et al., "Going deeper with convolutions", CVPR 2015), branches
begin with 1x1 convolutions. One convolution with the channels of all of them reads the tensor once,
and threads wait for each other once.
"""

import dataclasses
import itertools
import math

import numpy as np

from keras_trim.inference.ir.graph import Node
from keras_trim.inference.ir.operations import Concatenate, Convolution
from keras_trim.inference.lowering.layer_tiling import may_take_bands
from keras_trim.inference.lowering.registry import lower_node
from keras_trim.inference.program.tensors import channels_of


def siblings(builder, links, group, graph):
    """Yields lists of node numbers: layers at the start of branches that can be fused.

    A layer whose output is concatenated can write right into the concatenation. A fused layer can
    do so only if it comes first there and last in its list. Other such layers are not fused.
    """
    found, chain_of = {}, {chain[0]: chain for chain in group.chains}
    for number, *_ in group.branches:
        operation = graph.nodes[number].operation
        if not (
            number in links
            and isinstance(operation, Convolution)
            and operation.window == (1, 1)
            and operation.groups == 1
        ):
            continue
        if may_take_bands([links[n] for n in chain_of[number]], builder.num_threads):
            continue
        # Only of similar density, because all of them get the same kernel.
        density = round(math.log2(max(links[number].num_kept, 1) / operation.kernel.size))
        key = (
            operation.strides, operation.padding, operation.dilation, operation.low,
            operation.high, density,
        )  # fmt: skip
        found.setdefault(key, []).append(number)
    for numbers in found.values():
        places = {number: _places_joined(number, group, graph) for number in numbers}
        inner = [number for number in numbers if not places[number]]
        first = [number for number in numbers if places[number] == {0}]
        if len(inner + first[:1]) > 1:
            yield inner + first[:1]


def _places_joined(number, group, graph):
    """Returns the positions of a node's output in the concatenations that take it."""
    (value,) = graph.nodes[number].outputs
    users = (graph.nodes[user] for user in group.users.get(value, []) if user is not None)
    return {
        place
        for user in users
        if isinstance(user.operation, Concatenate)
        for place, other in enumerate(user.inputs)
        if other == value
    }


def lower_fused(builder, numbers, graph, values):
    """Appends the instructions of several convolutions, fused into one."""
    nodes = [graph.nodes[number] for number in numbers]
    operations = [node.operation for node in nodes]
    joined = dataclasses.replace(
        operations[0],
        kernel=np.concatenate([operation.kernel for operation in operations], axis=3),
        bias=np.concatenate([operation.bias for operation in operations]),
    )
    lower_node(builder, numbers[0], Node(joined, nodes[0].inputs, nodes[0].outputs, ""), values)
    (value,) = nodes[0].outputs
    whole, x = builder.to_nchw(values[value]), values[nodes[0].inputs[0]]
    ends = itertools.accumulate(len(operation.bias) for operation in operations)
    for number, node, end in zip(numbers, nodes, ends, strict=True):
        (value,) = node.outputs
        values[value] = channels_of(whole, end - len(node.operation.bias), end)
        builder.shapes[number] = x.shape, values[value].shape
        builder.node = number
        if number != numbers[0]:
            builder.label(f"with {nodes[0].name}")
