"""Engines as files: the graph as JSON and its weights, in the format of `keras_trim.storage`.

Nothing in a file is code, and a graph that was read is checked as strictly as one that is not
trusted must be: kernels rely on the sizes that it states.
"""

import dataclasses
import json
import pathlib

import numpy as np

from keras_trim.inference.graph import Graph, Node
from keras_trim.inference.operations import OPERATIONS
from keras_trim.storage import FormatError, load_arrays
from keras_trim.storage.arrays import metadata
from keras_trim.storage.atomic import replace_file
from keras_trim.storage.container import Writer

_VERSION = 1
_GRAPH = "graph"
_DTYPES = ("float16", "bfloat16", "float32", "float64", "bool", "int8", "int16", "int32", "int64",
           "uint8", "uint16", "uint32", "uint64")  # fmt: skip


def save_graph(graph, path):
    """Writes a graph.

    Raises:
        ValueError: if the path does not end in `.engine`, or a node is a call of Keras.
        OSError: if it cannot be written; a file that was there stays as it was.
    """
    path = pathlib.Path(path)
    if path.suffix != ".engine":
        raise ValueError(f"`path` must end in `.engine`. Received: path={path}")
    in_keras = [
        node.name for node in graph.nodes if type(node.operation).__name__ not in OPERATIONS
    ]
    if in_keras:
        raise ValueError(
            "An engine can be saved only if it needs no Keras: these layers have no kernel and run "
            f"in Keras. Received: layers={in_keras}"
        )
    arrays, nodes = {}, []
    for number, node in enumerate(graph.nodes):
        fields = {}
        for field in dataclasses.fields(node.operation):
            value = getattr(node.operation, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"{number}/{field.name}"] = value
            else:
                fields[field.name] = _encode(value)
        nodes.append([type(node.operation).__name__, fields, node.inputs, node.outputs, node.name])
    head = {
        "version": _VERSION,
        "nodes": nodes,
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "input_specs": graph.input_specs,
        "output_dtypes": graph.output_dtypes,
        "input_structure": _encode(graph.input_structure),
        "output_structure": _encode(graph.output_structure),
        "num_values": graph.num_values,
    }
    with replace_file(path) as file:
        writer = Writer(file)
        writer.write_array(_GRAPH, np.frombuffer(json.dumps(head).encode(), np.uint8))
        for name, array in arrays.items():
            writer.write_array(name, array)
        writer.finish(metadata())


def _encode(value):
    """JSON has neither tuples nor infinities."""
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return {"dict": {key: _encode(item) for key, item in value.items()}}
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, np.generic):
        return value.item()
    return value


def _decode(value):
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "tuple":
            return tuple(_decode(item) for item in content)
        if kind == "dict":
            return {key: _decode(item) for key, item in content.items()}
        return {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}[content]
    return value


def load_graph(path):
    """Reads a graph.

    Raises:
        FormatError: if the file is damaged, or is not an engine's.
        OSError: if it cannot be read.
    """
    arrays = load_arrays(path)
    text = arrays.pop(_GRAPH, None)
    if text is None or text.dtype != np.uint8:
        raise FormatError(f"{path} holds no engine: `Engine.save` writes those. Received: {path}")
    try:
        return _graph(json.loads(text.tobytes()), arrays)
    except FormatError:
        raise
    # What a file that was tampered with can raise on its way through JSON and dataclasses.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} is no valid engine: {error}. Received: {path}") from None


def _graph(head, arrays):
    _require(head["version"] == _VERSION, f"its version is {head['version']}, not {_VERSION}")
    graph = Graph(
        inputs=head["inputs"],
        outputs=head["outputs"],
        input_specs=head["input_specs"],
        output_dtypes=head["output_dtypes"],
        input_structure=_decode(head["input_structure"]),
        output_structure=_decode(head["output_structure"]),
        num_values=head["num_values"],
    )
    known = set(graph.inputs)
    for number, (kind, fields, inputs, outputs, name) in enumerate(head["nodes"]):
        _require(kind in OPERATIONS, f"it has no operation {kind!r}")
        cls = OPERATIONS[kind]
        values = {key: _decode(value) for key, value in fields.items()}
        for field in dataclasses.fields(cls):
            if f"{number}/{field.name}" in arrays:
                values[field.name] = arrays.pop(f"{number}/{field.name}")
        operation = cls(**values)
        operation.check()
        _require(set(inputs) <= known, f"node {number} takes a value that is not there yet")
        _require(known.isdisjoint(outputs), f"node {number} makes a value that is there already")
        _require(len(set(outputs)) == len(outputs), f"node {number} makes a value twice")
        known.update(outputs)
        graph.nodes.append(Node(operation, inputs, outputs, str(name)))
    _require(set(graph.outputs) <= known, "an output is never made")
    _require(not arrays, f"it has arrays that no operation takes: {sorted(arrays)[:3]}")
    for spec in graph.input_specs:
        _require(
            isinstance(spec["name"], str)
            and spec["dtype"] in _DTYPES
            and all(n is None or (isinstance(n, int) and n >= 0) for n in spec["shape"]),
            "an input has an impossible shape or dtype",
        )
    _require(set(graph.output_dtypes) <= set(_DTYPES), "an output has an unknown dtype")
    _require(len(graph.inputs) == len(graph.input_specs), "inputs without a description")
    _require(len(graph.outputs) == len(graph.output_dtypes), "outputs without a description")
    _require(_numbers(graph.input_structure) == list(range(len(graph.inputs))), "its inputs")
    _require(_numbers(graph.output_structure) == list(range(len(graph.outputs))), "its outputs")
    return graph


def _numbers(structure):
    if isinstance(structure, dict):
        return sorted(i for part in structure.values() for i in _numbers(part))
    if isinstance(structure, list | tuple):
        return sorted(i for part in structure for i in _numbers(part))
    return [structure]


def _require(condition, reason):
    if not condition:
        raise FormatError(f"This is no valid engine: {reason}")
