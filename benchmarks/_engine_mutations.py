"""Engine files that lie: their checksums are right, but their graphs or weights are not.

Changes below the checksums are those of `_mutations.py`. A file is an archive of arrays, one of
which is the graph as JSON, so most changes here affect the graph or the weights it uses.
"""

import copy
import io
import json

import numpy as np

from benchmarks import _mutations
from keras_trim.storage.container import Reader, Writer

_GRAPH = "graph"


def parts_of(data):
    """Returns the graph as parsed JSON, and the arrays of a file."""
    with Reader(io.BytesIO(data), 1 << 26) as reader:
        arrays = {name: reader.read_array(name) for name in reader.arrays}
    return json.loads(arrays.pop(_GRAPH).tobytes()), arrays


def join(graph, arrays):
    buffer = io.BytesIO()
    writer = Writer(buffer)
    writer.write_array(_GRAPH, np.frombuffer(json.dumps(graph).encode(), np.uint8))
    for name, array in arrays.items():
        writer.write_array(name, array)
    writer.finish({})
    return buffer.getvalue()


def mutate(data, parts, choice):
    """Returns a changed file: one in four below the checksums, the others with valid ones."""
    if choice.randrange(4) == 0:
        return _mutations.mutate(data, choice)
    graph, arrays = copy.deepcopy(parts[0]), dict(parts[1])
    for _ in range(choice.choice((1, 1, 1, 2, 3))):
        choice.choice((_change_graph, _change_graph, _swap, _change_array, _rewire))(
            graph, arrays, choice
        )
    return join(graph, arrays)


def _change_graph(graph, arrays, choice):
    _mutations._change_somewhere(graph, choice)


def _rewire(graph, arrays, choice):
    node = choice.choice(graph["nodes"]) if graph.get("nodes") else None
    if isinstance(node, list) and len(node) == 5 and isinstance(node[2], list):
        node[2] = [choice.randrange(40) for _ in range(choice.choice((len(node[2]), 1, 2, 3)))]


def _swap(graph, arrays, choice):
    """Puts the weights of one operation in place of another's."""
    if len(arrays) > 1:
        names = list(arrays)
        a, b = choice.choice(names), choice.choice(names)
        arrays[a], arrays[b] = arrays[b], arrays[a]


def _change_array(graph, arrays, choice):
    name = choice.choice(list(arrays))
    array = arrays[name]
    kind = choice.randrange(6)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = array.reshape(-1)
    elif kind == 2:
        arrays[name] = array.T
    elif kind == 3:
        arrays[name] = array[:-1] if array.ndim else array
    elif kind == 4:
        arrays[name] = array.astype(choice.choice(("float64", "int32", "uint8", "float16")))
    else:
        value = choice.choice((np.nan, np.inf, 1e38, -1e38))
        arrays[name] = np.full_like(array, value) if array.dtype.kind == "f" else array
