"""Chains of layers on images: the output of each layer goes to the next one only."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations import Convolution, DepthwiseConvolution, Pool
from keras_trim.inference.ir.padding import padding_of

_WINDOWS = Convolution, DepthwiseConvolution, Pool


def chains(graph):
    """Splits a graph into chains: lists of node numbers, in execution order.

    Each node of a chain takes the output of the previous one, which nothing else takes.
    """
    uses, chain_to, found = graph.uses(), {}, []
    for number, node in enumerate(graph.nodes):
        chain = []
        if is_linkable(node) and len(uses[node.inputs[0]]) == 1:
            chain = chain_to.get(node.inputs[0], chain)
        if not chain:
            found.append(chain)
        chain.append(number)
        if is_linkable(node):
            chain_to[node.outputs[0]] = chain
    return sorted(found, key=lambda chain: chain[-1])


def is_linkable(node):
    """Whether a layer can be computed for some rows of an image at a time."""
    operation = node.operation
    if not (isinstance(operation, _WINDOWS) and node.inputs):
        return False
    rows = operation.padding[0]
    return getattr(operation, "input_dilation", (1, 1)) == (1, 1) and (
        isinstance(rows, str) or min(rows) >= 0
    )


@dataclasses.dataclass
class Link:
    """A layer of a chain: its output shape, and the input rows that it needs.

    Args:
        node: `graph.Node`.
        number: Integer. The node's number.
        shape: Tuple of integers. The shape of its input.
    """

    node: object
    number: int
    shape: tuple

    def __post_init__(self):
        operation, (batch, *size, channels) = self.node.operation, self.shape
        axes = zip(
            operation.padding, size, operation.window, operation.strides, operation.dilation,
            strict=True,
        )  # fmt: skip
        (height, self.top, _), (width, *self.sides) = (padding_of(*axis) for axis in axes)
        # All weights, non-zero weights, and products with these.
        self.num_weights = self.num_kept = self.num_products = 0
        if not isinstance(operation, Pool):
            channels = len(operation.bias)
            self.num_weights = operation.kernel.size
            self.num_kept = np.count_nonzero(operation.kernel)
            self.num_products = self.num_kept * height * width
        self.out_shape = (batch, height, width, channels)

    @property
    def has_window(self):
        return self.node.operation.window != (1, 1)

    def reads(self, first, last):
        """Returns the range of input rows for some output rows, and the padding above and below."""
        operation = self.node.operation
        reach = (operation.window[0] - 1) * operation.dilation[0] + 1
        begin = first * operation.strides[0] - self.top
        end = (last - 1) * operation.strides[0] - self.top + reach
        height = self.shape[1]
        return max(begin, 0), min(end, height), max(-begin, 0), max(end - height, 0)

    def rows(self, first, last):
        """Returns the operation for some output rows, and the range of input rows it takes."""
        begin, end, above, below = self.reads(first, last)
        padding = ((above, below), tuple(self.sides))
        return dataclasses.replace(self.node.operation, padding=padding), begin, end

    @property
    def workload(self):
        """The workload key, equal for layers that take equally long."""
        operation = self.node.operation
        return (
            type(operation), self.shape, self.out_shape, operation.window, operation.strides,
            operation.padding, operation.dilation,
            round(20 * self.num_kept / max(self.num_weights, 1)), len(self.node.inputs),
        )  # fmt: skip


def links_of(nodes, values):
    """Returns the links of a chain; none if its values are not images with a batch size of 1."""
    shape, links = values[nodes[0][1].inputs[0]].shape, []
    if len(shape) != 4 or shape[0] != 1:
        return []
    for number, node in nodes:
        links.append(Link(node, number, shape))
        shape = links[-1].out_shape
        if min(shape) < 1 or any(values[other].shape != shape for other in node.inputs[1:]):
            return []
    return links
