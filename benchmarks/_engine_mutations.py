"""Corrupt engine files: their checksums are valid, but their graphs or weights are not.

A file is an archive of arrays, one of which is the graph as JSON. This module writes the changed
archive itself, because `Writer` would take ten times as long to compress it.
"""

import io
import json
import zlib

import numpy as np

from benchmarks import _mutations
from keras_trim.storage.frame import MAGIC, PREFIX, TRAILER, VERSION
from keras_trim.storage.reader import Reader

_GRAPH = "graph"


class Template:
    """An engine file to mutate.

    Args:
        data: Bytes of the file.
    """

    def __init__(self, data):
        with Reader(io.BytesIO(data), 1 << 26) as reader:
            self.arrays = {name: reader.read_array(name) for name in reader.arrays}
        self.text = self.arrays.pop(_GRAPH).tobytes()
        self._stored = {id(array): _store(array) for array in self.arrays.values()}

    def mutate(self, choice):
        """Returns the names of the changes and the changed file."""
        graph, arrays = json.loads(self.text), dict(self.arrays)
        changes = [choice.choice(CHANGES) for _ in range(choice.choice((1, 1, 1, 2, 3)))]
        for change in changes:
            change(graph, arrays, choice)
        name = changes[0].__name__.strip("_") if len(changes) == 1 else "several"
        return name, self.join(json.dumps(graph).encode(), arrays)

    def join(self, text, arrays):
        """Returns an uncompressed file with this graph and these arrays."""
        items, body = [], [PREFIX.pack(MAGIC, VERSION, 0)]
        for name, array in {_GRAPH: np.frombuffer(text, np.uint8), **arrays}.items():
            item, stored = self._stored.get(id(array)) or _store(array)
            items.append(f'{{"name": {json.dumps(name)}, {item}}}')
            body.append(stored)
        header = f'{{"arrays": [{", ".join(items)}], "files": [], "metadata": {{}}}}'.encode()
        offset, size = sum(map(len, body)), len(header)
        trailer = TRAILER.pack(offset, size, size, zlib.crc32(header), VERSION, 0, MAGIC)
        return b"".join([*body, header, trailer])


def _store(array):
    """Returns an array's header entry, without its name, and its bytes."""
    data = array.tobytes()
    chunk = {"positions": "all", "count": array.size, "stored": [len(data)]}
    item = {
        "dtype": array.dtype.name,
        "shape": array.shape,
        "chunks": [{**chunk, "crc32": zlib.crc32(data)}] if data else [],
    }
    return json.dumps(item)[1:-1], data


def _change_graph(graph, arrays, choice):
    _mutations._change_somewhere(graph, choice)


def _rewire(graph, arrays, choice):
    nodes = graph.get("nodes")
    node = choice.choice(nodes) if isinstance(nodes, list) and nodes else None
    if isinstance(node, list) and len(node) == 5 and isinstance(node[2], list):
        node[2] = [choice.randrange(40) for _ in range(choice.choice((len(node[2]), 1, 2, 3)))]


def _swap(graph, arrays, choice):
    """Replaces the weights of one operation by those of another."""
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


CHANGES = (_change_graph, _change_graph, _swap, _change_array, _rewire)
