"""From a graph and the shapes of its inputs to a program."""

import math

from keras_trim.inference.branches import forks, lower_fork
from keras_trim.inference.dtypes import stored
from keras_trim.inference.plan import Builder
from keras_trim.inference.tensors import Tensor
from keras_trim.progress import progress


def make_program(graph, input_shapes, num_threads, tuner, skip_zeros=True, most_floats=math.inf):
    """Plans a graph for inputs of the given shapes.

    Args:
        graph: `Graph`.
        input_shapes: List of tuples of integers, batch sizes included.
        num_threads: Integer.
        tuner: `tuning.Tuner`.
        skip_zeros: Boolean. As `Builder`'s.
        most_floats: Number. As `Builder`'s.

    Returns:
        `Program`.

    Raises:
        ValueError: if an operation does not take what it is given, or it is too large.
    """
    builder = Builder(num_threads, tuner, skip_zeros, most_floats)
    values = {}
    for value, shape, spec in zip(graph.inputs, input_shapes, graph.input_specs, strict=True):
        values[value] = Tensor(shape, "rows", stored(spec["dtype"]))
    inputs = [values[value] for value in graph.inputs]
    parts = forks(graph)
    with progress("choosing kernels", len(parts)) as work:
        for fork in parts:
            lower_fork(builder, fork, graph, values)
            work.advance()
    builder.node = None
    return builder.finish(inputs, [values[value] for value in graph.outputs])
