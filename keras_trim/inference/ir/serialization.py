"""Engines as files: the graph as JSON plus its weights, in the format of `keras_trim.storage`.

Files hold no code and are not trusted. Kernels rely on the sizes in a graph, so every field is
checked after reading.
"""

import dataclasses
import json
import pathlib

import numpy as np

from keras_trim.atomic import replace_file
from keras_trim.inference.ir.graph import Graph, Node
from keras_trim.inference.ir.operations import OPERATIONS
from keras_trim.inference.ir.validation import require, require_types
from keras_trim.storage import FormatError, load_arrays
from keras_trim.storage.arrays import metadata
from keras_trim.storage.writer import Writer

_VERSION = 1
_MOST_JSON = 1 << 24  # bytes; a model with a thousand layers takes about 300,000
_MOST_NODES = 1 << 14
_MOST_AXES = 16
_DEEPEST = 32  # nesting of inputs, outputs and fields
_KEYS = {"version", "nodes", "inputs", "outputs", "input_specs", "output_dtypes",
         "input_structure", "output_structure", "num_values"}  # fmt: skip
_GRAPH = "graph"
# Fields that keep their old names in files.
_FILE_NAMES = {("Convolution", "input_dilation"): "spread", ("Pool", "pad_value"): "outside"}
_DTYPES = ("float16", "bfloat16", "float32", "float64", "bool", "int8", "int16", "int32", "int64",
           "uint8", "uint16", "uint32", "uint64")  # fmt: skip


def save_graph(graph, path):
    """Writes a graph.

    Raises:
        ValueError: if the path does not end in `.engine`, a node calls Keras, a key of inputs or
            outputs is not a string, or the graph is larger than `load_graph` accepts.
        OSError: if the file cannot be written; an existing file stays unchanged.
    """
    path = pathlib.Path(path)
    if path.suffix != ".engine":
        raise ValueError(
            f"`path` must end in `.engine`: write {str(path.with_suffix('.engine'))!r}. "
            f"Received: path={path}"
        )
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
                kind = type(node.operation).__name__
                fields[_FILE_NAMES.get((kind, field.name), field.name)] = _encode(value)
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
    text = json.dumps(head).encode()
    if len(nodes) > _MOST_NODES or len(text) > _MOST_JSON:
        raise ValueError(
            f"An engine can be saved only if it has at most {_MOST_NODES:,} operations, described "
            f"in {_MOST_JSON:,} bytes. Received: {len(nodes):,} operations, {len(text):,} bytes"
        )
    with replace_file(path) as file:
        writer = Writer(file)
        writer.write_array(_GRAPH, np.frombuffer(text, np.uint8))
        for name, array in arrays.items():
            writer.write_array(name, array)
        writer.finish(metadata())


def _encode(value):
    """A value as JSON, which has neither tuples nor infinities."""
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        others = [key for key in value if not isinstance(key, str)]
        if others:  # JSON would make strings of them
            raise ValueError(
                "An engine can be saved only if the keys of its inputs and outputs are strings. "
                f"Received: {others}"
            )
        return {"dict": {key: _encode(item) for key, item in value.items()}}
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, np.generic):
        return value.item()
    return value


_FLOATS = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}


def _decode(value, depth=0):
    """The value of a field: a number, a string, a boolean, None, or tuples of these."""
    if not isinstance(value, dict):
        require(not isinstance(value, list), "a field has a list")
        return value
    require(len(value) == 1 and depth < _DEEPEST, "a field of another form")
    ((kind, content),) = value.items()
    if kind == "float":
        require(isinstance(content, str) and content in _FLOATS, "a number of another form")
        return _FLOATS[content]
    require(kind == "tuple" and isinstance(content, list), "a field of another kind")
    return tuple(_decode(item, depth + 1) for item in content)


def load_graph(path, max_bytes=None):
    """Reads a graph.

    Args:
        path: Path.
        max_bytes: Integer. How many bytes the file may decode to, as for `load_arrays`.

    Raises:
        FormatError: if the file is damaged, or does not hold an engine.
        OSError: if it cannot be read.
    """
    arrays = load_arrays(path, max_bytes)
    text = arrays.pop(_GRAPH, None)
    if text is None or text.dtype != np.uint8:
        raise FormatError(
            "This file holds no engine: `Engine.save` writes those. If it holds a model, read it "
            f"with `keras_trim.load`, and call `Engine(model)`. Received: path={path}"
        )
    try:
        require(text.nbytes <= _MOST_JSON, "its graph is too large")
        return _graph(_parsed(text.tobytes()), arrays)
    except ValueError as error:
        raise FormatError(f"This is no valid engine: {error}. Received: path={path}") from None


def _parsed(text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its graph is no JSON") from None


def _graph(head, arrays):
    """The graph that a file describes.

    Raises:
        ValueError: if the description is not valid.
    """
    require(isinstance(head, dict) and set(head) == _KEYS, "its graph has other fields")
    require(head["version"] == _VERSION, f"its version is {head['version']!r:.20}, not {_VERSION}")
    nodes = head["nodes"]
    require(isinstance(nodes, list) and len(nodes) <= _MOST_NODES, "it has too many operations")
    graph = Graph(
        inputs=_values(head["inputs"]),
        outputs=_values(head["outputs"]),
        input_specs=_specs(head["input_specs"]),
        output_dtypes=head["output_dtypes"],
        input_structure=_structure(head["input_structure"], len(head["inputs"])),
        output_structure=_structure(head["output_structure"], len(head["outputs"])),
        num_values=head["num_values"],
    )
    require(len(graph.inputs) == len(graph.input_specs) > 0, "its inputs are not described")
    require(len(set(graph.inputs)) == len(graph.inputs), "an input is there twice")
    known = set(graph.inputs)
    for number, node in enumerate(nodes):
        graph.nodes.append(_node(number, node, arrays))
        inputs, outputs = graph.nodes[-1].inputs, graph.nodes[-1].outputs
        require(known.issuperset(inputs), f"operation {number} takes a value that is not there yet")
        require(
            known.isdisjoint(outputs) and len(set(outputs)) == len(outputs),
            f"operation {number} makes a value that is there already",
        )
        known.update(outputs)
    require(known.issuperset(graph.outputs), "an output is never made")
    require(not arrays, "it has arrays that no operation takes")
    dtypes = graph.output_dtypes
    require(
        isinstance(dtypes, list)
        and len(dtypes) == len(graph.outputs) > 0
        and all(isinstance(dtype, str) and dtype in _DTYPES for dtype in dtypes),
        "its outputs are of unknown dtypes",
    )
    is_count = type(graph.num_values) is int and max(known) < graph.num_values < 1 << 31
    require(is_count, "it has another number of values")
    return graph


def _node(number, node, arrays):
    """One node; removes its arrays from `arrays`."""
    require(isinstance(node, list) and len(node) == 5, f"operation {number} is of another form")
    kind, fields, inputs, outputs, name = node
    require(isinstance(kind, str) and kind in OPERATIONS, f"it has no operation {kind!r:.100}")
    require(isinstance(fields, dict), f"operation {number} has no fields")
    known = dataclasses.fields(OPERATIONS[kind])
    names = {_FILE_NAMES.get((kind, field.name), field.name): field.name for field in known}
    require(set(fields) <= set(names), f"operation {number}, {kind}, has other fields")
    values = {names[key]: _decode(value) for key, value in fields.items()}
    for field in known:
        array = arrays.pop(f"{number}/{field.name}", None)
        if array is not None:
            values[field.name] = array
    needed = {field.name for field in known if field.default is dataclasses.MISSING}
    require(needed <= set(values), f"operation {number}, {kind}, has other fields")
    operation = OPERATIONS[kind](**values)
    try:
        require_types(operation)
        operation.check()
        require(operation.takes(len(_values(inputs))), "it takes another number of values")
    except ValueError as error:
        raise ValueError(f"operation {number}, {kind}: {error}") from None
    require(isinstance(name, str), f"operation {number} has no name")
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return Node(operation, inputs, _values(outputs), name)


def _values(numbers):
    """The numbers of values, checked."""
    fits = isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 31 for n in numbers)
    require(fits, "it has values without numbers")
    return numbers


def _specs(specs):
    """The descriptions of inputs, checked."""
    require(isinstance(specs, list), "its inputs are not described")
    for spec in specs:
        require(isinstance(spec, dict), "an input is not described")
        name, shape, dtype = (spec.get(key) for key in ("name", "shape", "dtype"))
        length = spec.get("table_length", 0)
        require(
            isinstance(name, str)
            and isinstance(dtype, str)
            and dtype in _DTYPES
            and isinstance(shape, list)
            and type(spec.get("saturates", False)) is bool
            and type(length) is int
            and 0 <= length < 1 << 31
            and 1 <= len(shape) <= _MOST_AXES
            and all(n is None or (type(n) is int and 0 <= n < 1 << 31) for n in shape),
            "an input has an impossible name, shape, dtype or table",
        )
    return specs


def _structure(encoded, count):
    """The structure of inputs or outputs; must have each number below `count` once."""
    leaves = []

    def decode(part, depth):
        require(depth < _DEEPEST, "its inputs or outputs are nested too deeply")
        if type(part) is int:
            leaves.append(part)
            return part
        if isinstance(part, list):
            return [decode(item, depth + 1) for item in part]
        require(
            isinstance(part, dict) and len(part) == 1, "a structure of inputs or outputs is broken"
        )
        ((kind, content),) = part.items()
        if kind == "tuple" and isinstance(content, list):
            return tuple(decode(item, depth + 1) for item in content)
        require(kind == "dict" and isinstance(content, dict), "a structure of an unknown kind")
        return {key: decode(item, depth + 1) for key, item in content.items()}

    structure = decode(encoded, 0)
    require(sorted(leaves) == list(range(count)), "a structure lacks an input or output")
    return structure
