"""Lowers a graph, for inputs of known shapes, to a program."""

import math

from keras_trim.inference.ir.dtypes import stored
from keras_trim.inference.lowering import (  # noqa: F401 (importing them registers lowerings)
    contraction,
    convolution,
    dense,
    depthwise,
    elementwise,
    host,
    normalization,
    pooling,
    recurrent,
    resizing,
    shaping,
    strided,
    time_axis,
)
from keras_trim.inference.lowering.branches import branch_groups, lower_branches
from keras_trim.inference.program.builder import Builder
from keras_trim.inference.program.tensors import Tensor
from keras_trim.progress import progress


def lower_graph(graph, input_shapes, num_threads, tuner, skip_zeros=True, most_floats=math.inf):
    """Lowers a graph for inputs of the given shapes.

    Args:
        graph: `Graph`.
        input_shapes: List of tuples of integers, batch sizes included.
        num_threads: Integer.
        tuner: `tuner.Tuner`.
        skip_zeros: Boolean. As for `Builder`.
        most_floats: Number. As for `Builder`.

    Returns:
        `Program`.

    Raises:
        ValueError: if an operation does not accept its inputs, or needs too much memory.
    """
    builder = Builder(num_threads, tuner, skip_zeros, most_floats)
    values = {}
    for value, shape, spec in zip(graph.inputs, input_shapes, graph.input_specs, strict=True):
        values[value] = Tensor(shape, "NHWC", stored(spec["dtype"]))
    inputs = [values[value] for value in graph.inputs]
    parts = branch_groups(graph)
    with progress("choosing kernels", len(parts)) as work:
        for group in parts:
            lower_branches(builder, group, graph, values)
            work.advance()
    builder.node = None
    return builder.finish(inputs, [values[value] for value in graph.outputs])
