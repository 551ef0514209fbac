"""Reads the weights in a LiteRT file: which are stored sparsely, and which operations read them.

(`SparsityParameters` in LiteRT's schema.fbs defines the layout of sparse tensors.)
"""

import dataclasses
import functools
import importlib.util
import itertools
import pathlib
import sys

import numpy as np

_DTYPES = {0: np.float32, 1: np.float16, 2: np.int32, 3: np.uint8, 4: np.int64, 9: np.int8}
_DENSIFY = "DENSIFY"


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """A constant of a file.

    Args:
        values: Array, dense.
        is_sparse: Bool. Whether the file omits its zeros.
        readers: List of pairs: the name of an operation that reads it, such as `"CONV_2D"`, and
            whether it reads it as stored. (Otherwise loading the file makes the weight dense.)
    """

    values: np.ndarray
    is_sparse: bool
    readers: list


@dataclasses.dataclass(frozen=True)
class LiteRTFile:
    """The contents of a LiteRT file.

    Args:
        operations: List of strings: the names of the main graph's operations, in order.
        weights: List of the `StoredWeight`s of all graphs.
    """

    operations: list
    weights: list

    def find(self, values):
        """Returns the stored weight with a Keras weight's zeros, in any order of axes, or `None`.

        The values may differ by factors that the converter folds in, such as those of a
        normalization.
        """
        mask = values != 0
        count = np.count_nonzero(mask)
        stored = [(weight, (weight.values != 0).reshape(-1)) for weight in self.weights]
        stored = [
            pair
            for pair in stored
            if pair[1].size == mask.size and np.count_nonzero(pair[1]) == count
        ]
        axes = range(mask.ndim)
        usual = (mask.ndim - 1, *range(mask.ndim - 1))  # outputs first
        for order in sorted(itertools.permutations(axes), key=lambda order: order != usual):
            flat = mask.transpose(order).reshape(-1)
            for weight, other in stored:
                if np.array_equal(flat, other):
                    return weight
        return None


def read(data):
    """Reads the bytes of a file."""
    schema = _schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    graphs = [_read_graph(graph, model, names) for graph in model.subgraphs]
    return LiteRTFile(graphs[0][0], [weight for _, weights in graphs for weight in weights])


@functools.cache
def _schema():
    """Imports TensorFlow's generated reader without importing TensorFlow, which takes seconds."""
    name = "keras_trim_litert_schema"
    folder = pathlib.Path(importlib.util.find_spec("tensorflow").origin).parent
    path = folder / "lite" / "python" / "schema_py_generated.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _read_graph(graph, model, names):
    operations, made_dense, readers = [], {}, {}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
        inputs = [int(i) for i in operator.inputs]
        if name == _DENSIFY:
            made_dense[int(operator.outputs[0])] = inputs[0]
            continue
        operations.append(name)
        for i in inputs:
            readers.setdefault(i, []).append(name)
    weights = []
    for number, tensor in enumerate(graph.tensors):
        buffer = model.buffers[tensor.buffer].data
        if buffer is None or not len(buffer) or tensor.type not in _DTYPES:
            continue
        stored = np.frombuffer(bytes(bytearray(buffer)), _DTYPES[tensor.type])
        found = [(reader, True) for reader in readers.get(number, [])]
        for dense, source in made_dense.items():
            if source == number:
                found += [(reader, False) for reader in readers.get(dense, [])]
        is_sparse = tensor.sparsity is not None
        values = _decode(stored, tensor) if is_sparse else stored.reshape(_shape(tensor))
        weights.append(StoredWeight(values, is_sparse, found))
    return operations, weights


def _shape(tensor):
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()


def _decode(stored, tensor):
    """Returns a sparse tensor as a dense array."""
    sparsity, shape = tensor.sparsity, _shape(tensor)
    order = [int(axis) for axis in sparsity.traversalOrder]
    blocked = [] if sparsity.blockMap is None else [int(axis) for axis in sparsity.blockMap]
    places = np.zeros((1, 0), np.int64)  # a row per element so far: its index along each axis
    sizes = {}
    for axis, metadata in zip(order, sparsity.dimMetadata, strict=True):
        if metadata.format == 0:  # dense
            sizes[axis] = int(metadata.denseSize)
            index = np.tile(np.arange(sizes[axis]), len(places))
            places = np.repeat(places, sizes[axis], axis=0)
        else:
            index = np.asarray(metadata.arrayIndices.values, np.int64)
            segments = np.asarray(metadata.arraySegments.values, np.int64)
            places = np.repeat(places, np.diff(segments), axis=0)
        places = np.column_stack([places, index])
    by_axis = {axis: places[:, position] for position, axis in enumerate(order)}
    rank = len(shape)
    for number, axis in enumerate(blocked):
        by_axis[axis] = by_axis[axis] * sizes[rank + number] + by_axis[rank + number]
    index = np.stack([by_axis[axis] for axis in range(rank)])
    inside = (index < np.asarray(shape)[:, None]).all(axis=0)  # blocks may extend past an edge
    dense = np.zeros(shape, stored.dtype)
    dense[tuple(index[:, inside])] = stored[: index.shape[1]][inside]
    return dense
