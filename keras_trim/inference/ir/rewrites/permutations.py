"""Delays permutations until an operation needs them, so that they cancel out.

In the data format "channels_first", each convolution moves the channels of its input to the end,
and those of its output back. The operations between two convolutions (activations, sums, batch
normalization) work in any order of axes, so the two moves meet and cancel.
"""

import dataclasses

import numpy as np

from keras_trim.inference.ir.graph import Node
from keras_trim.inference.ir.operations import (
    Activation,
    Binary,
    Cast,
    Concatenate,
    Constant,
    Permute,
)


def cancel_permutations(graph):
    """An equivalent graph with fewer `Permute`s."""
    return _Rewriter(graph).run()


def drop_unused(graph):
    """The graph without nodes whose outputs are never used."""
    needed, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return dataclasses.replace(graph, nodes=kept[::-1])


class _Rewriter:
    def __init__(self, graph):
        self.graph = dataclasses.replace(graph, nodes=[])
        self.old = graph
        self.moved = {}  # value -> (value, axes): the value it permutes, and how
        self.done = {}  # value -> the output of the `Permute` emitted for it
        self.constants = {}  # value -> array

    def run(self):
        for node in self.old.nodes:
            if isinstance(node.operation, Permute):
                self._permute(node)
            elif not self._pass(node):
                inputs = [self._settled(value, node.name) for value in node.inputs]
                self.graph.nodes.append(dataclasses.replace(node, inputs=inputs))
                if isinstance(node.operation, Constant):
                    self.constants[node.outputs[0]] = node.operation.value
        outputs = [self._settled(value, "outputs") for value in self.old.outputs]
        return drop_unused(dataclasses.replace(self.graph, outputs=outputs))

    def _origin(self, value):
        return self.moved.get(value, (value, None))

    def _permute(self, node):
        value, axes = self._origin(node.inputs[0])
        own = tuple(node.operation.axes)
        axes = own if axes is None else tuple(axes[axis] for axis in own)
        self.moved[node.outputs[0]] = (value, axes)

    def _settled(self, value, name):
        """The value in its own order of axes; emits a `Permute` if necessary."""
        origin, axes = self._origin(value)
        if axes is None or axes == tuple(range(len(axes))):
            return origin
        if value not in self.done:
            (self.done[value],) = self.graph.add(Permute(axes), [origin], name)
        return self.done[value]

    def _pass(self, node):
        """Moves an operation before the permutation of its inputs; returns whether it could."""
        operation = node.operation
        if not isinstance(operation, Activation | Binary | Cast | Concatenate):
            return False
        origins = [self._origin(value) for value in node.inputs]
        orders = {axes for value, axes in origins if value not in self.constants}
        if len(orders) != 1 or None in orders:
            return False
        (axes,) = orders
        inputs = []
        for value, _ in origins:
            if value in self.constants:
                value = self._constant(value, axes, node.name)
                if value is None:
                    return False
            inputs.append(value)
        if isinstance(operation, Concatenate):
            operation = Concatenate(axes[operation.axis])
        value = self.graph.new_value()
        self.graph.nodes.append(Node(operation, inputs, [value], node.name))
        self.moved[node.outputs[0]] = (value, axes)
        return True

    def _constant(self, value, axes, name):
        """A constant with the permutation `axes` undone, or None if the ranks differ."""
        array = self.constants[value]
        if array.ndim != len(axes):
            return None
        array = np.ascontiguousarray(array.transpose(np.argsort(axes)))
        (moved,) = self.graph.add(Constant(array), [], name)
        return moved
