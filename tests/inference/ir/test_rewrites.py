"""Rules replace pairs of operations, the first of which is for the second alone."""

import numpy as np

from keras_trim.inference.ir.graph import Graph
from keras_trim.inference.ir.operations import Activation, Binary, Convolution, Pad, Pool
from keras_trim.inference.ir.rewrites import rewrite
from keras_trim.inference.ir.rewrites.driver import apply, rule


def pointwise(inputs=2, outputs=2):
    kernel = np.ones((1, 1, inputs, outputs), np.float32)
    return Convolution(kernel, np.zeros(outputs, np.float32))


def graph_of(*nodes, outputs):
    """A graph of `(operation, inputs)`; value 0 is its input, and node n makes value n + 1."""
    graph = Graph(inputs=[0], num_values=1)
    for operation, inputs in nodes:
        graph.add(operation, inputs, type(operation).__name__)
    graph.outputs = outputs
    return graph


def shown(graph):
    return [(type(node.operation).__name__, node.inputs, node.outputs) for node in graph.nodes]


RELU = Activation("clip", 0.0, np.inf)


def test_a_scale_and_a_clip_go_into_the_product_before_them():
    scale = Activation("affine", 2.0, 1.0)
    graph = graph_of((pointwise(), [0]), (scale, [1]), (RELU, [2]), outputs=[3])
    rewritten = rewrite(graph)
    assert shown(rewritten) == [("Convolution", [0], [1])]
    assert rewritten.outputs == [1]
    (node,) = rewritten.nodes
    assert (node.operation.low, node.operation.high) == (0.0, np.inf)
    np.testing.assert_array_equal(node.operation.kernel, 2.0)
    np.testing.assert_array_equal(node.operation.bias, 1.0)
    assert len(graph.nodes) == 3  # which stays as it was
    np.testing.assert_array_equal(graph.nodes[0].operation.kernel, 1.0)


def test_what_others_take_too_stays():
    graph = graph_of((pointwise(), [0]), (RELU, [1]), outputs=[1, 2])
    assert shown(rewrite(graph)) == shown(graph)


def test_a_sum_goes_into_the_later_convolution():
    add = Binary("add", is_broadcast=False)
    nodes = (pointwise(), [0]), (pointwise(), [0]), (add, [1, 2])
    assert shown(rewrite(graph_of(*nodes, (RELU, [3]), outputs=[4]))) == [
        ("Convolution", [0], [1]),
        ("Convolution", [0, 1], [2]),
    ]
    # What comes after the convolution cannot be added in it.
    after = (pointwise(), [0]), (RELU, [0]), (add, [1, 2])
    assert shown(rewrite(graph_of(*after, outputs=[3]))) == [
        ("Convolution", [0], [1]),
        ("Activation", [0], [2]),
        ("Binary", [1, 2], [3]),
    ]


def test_padding_goes_into_the_window_after_it():
    pool = Pool((3, 3), (1, 1), ("valid", "valid"), True)
    rewritten = rewrite(graph_of((Pad(((1, 1), (0, 2)), -9.0), [0]), (pool, [1]), outputs=[2]))
    (node,) = rewritten.nodes
    assert (node.inputs, node.outputs) == ([0], [2])
    assert node.operation.padding == ((1, 1), (0, 2))
    assert node.operation.pad_value == -9.0
    mean = Pool((3, 3), (1, 1), ("valid", "valid"), False)
    kept = graph_of((Pad(((1, 1), (0, 2))), [0]), (mean, [1]), outputs=[2])
    assert shown(rewrite(kept)) == shown(kept)


def test_a_rule_sees_the_only_user_of_the_second():
    seen = []

    @rule(Convolution, Activation)
    def look(first, second, user):
        seen.append(user)

    graph = graph_of((pointwise(), [0]), (RELU, [1]), (pointwise(), [2]), outputs=[3])
    assert apply(look, graph).nodes == graph.nodes
    assert seen == [graph.nodes[2].operation]
