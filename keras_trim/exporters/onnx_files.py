"""Edits finished ONNX files: names, and weights in float16."""

import numpy as np

_LEAST_WEIGHTS = 64  # smallest tensor to store in float16


def rename(proto, inputs=None, outputs=None):
    """Renames the inputs and outputs of a model in place.

    Args:
        proto: ONNX `ModelProto`.
        inputs: List of strings, or `None` to keep them.
        outputs: List of strings, or `None`.
    """
    graph = proto.graph
    names = {}
    for values, chosen in ((graph.input, inputs), (graph.output, outputs)):
        for value, name in zip(values, chosen or [], strict=bool(chosen)):
            names[value.name] = name
    taken = set(names.values())
    for node in graph.node:  # an inner value may have that name by chance
        for name in node.output:
            if name in taken and name not in names:
                names[name] = f"{name}_within"
    _rename(graph, names)


def _rename(graph, names):
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = names.get(value.name, value.name)
    for node in graph.node:
        for part in (node.input, node.output):
            for i, name in enumerate(part):
                part[i] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def with_half_weights(data):
    """Stores the weights in float16, each cast to float32 where it is used.

    Args:
        data: Bytes of an ONNX file.

    Returns:
        Bytes.

    Raises:
        ValueError: if a weight is too large for float16.
    """
    import onnx

    proto = onnx.load_from_string(data)
    _halve(proto.graph)
    return proto.SerializeToString()


def _halve(graph):
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _LEAST_WEIGHTS:
            continue
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.isinf(halves).sum() > np.isinf(values).sum():
            raise ValueError(
                "A weight is too large for float16 (65504 at most): use weights=None. "
                f"Received: weights='float16', weight={tensor.name}"
            )
        stored = f"{tensor.name}_float16"
        casts.append(helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(halves, stored))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _halve(attribute.g)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
