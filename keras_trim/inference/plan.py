"""Programs: instructions, the memory they work in, and how both are put together."""

import dataclasses
import hashlib
import math

import numpy as np

from keras_trim.alignment import aligned_zeros
from keras_trim.inference.kernels.lines import MOST_BEFORE
from keras_trim.inference.kernels.program import (
    CODES,
    FACTORS,
    FIRST_ROW,
    OPERANDS,
    ROWS_PER_THREAD,
)
from keras_trim.inference.tensors import SLACK, Place, Tensor, round_up

_MOST_INSTRUCTIONS = 1 << 19  # where memory is limited; planning them takes some seconds


@dataclasses.dataclass
class HostStep:
    """What runs in Python: a function of arrays."""

    function: object
    inputs: list
    outputs: list


@dataclasses.dataclass
class Program:
    """What the engine runs for inputs of given shapes.

    Args:
        table: Array, int64, (instructions, OPERANDS).
        factors: Array, float32, (instructions, FACTORS).
        steps: List of `(begin, end)` ranges of instructions and `HostStep`s, in order.
        nodes: List of integers: the node each instruction of the table belongs to.
        host_nodes: List of integers: the node each `HostStep` belongs to.
        constants, index, short_index: Arrays, float32, int32, uint16.
        inputs, outputs: Lists of `Tensor`.
        arena_size: Integer. Floats of memory it needs to run.
        choices: Dictionary, node -> list of what was chosen for it, for the summary.
        shapes: List of pairs: the shapes of the first input, if any, and output of each node.
    """

    table: np.ndarray
    factors: np.ndarray
    steps: list
    nodes: list
    host_nodes: list
    constants: np.ndarray
    index: np.ndarray
    short_index: np.ndarray
    inputs: list
    outputs: list
    arena_size: int
    choices: dict
    shapes: list

    @property
    def num_bytes(self):
        """What it takes of memory, with all constants, for one run at a time."""
        arrays = self.table, self.constants, self.index, self.short_index
        return 4 * self.arena_size + sum(array.nbytes for array in arrays)

    def rows_alone(self, begin, end):
        """The rows of the table that one thread runs, from `begin` to `end`, in order."""
        for i in range(begin, end):
            if self.table[i, 0] == CODES["bands"]:
                first = self.table[i, FIRST_ROW]
                yield from range(first, first + self.table[i, ROWS_PER_THREAD])
            else:
                yield i


class _Pool:
    """Arrays that are joined into one."""

    def __init__(self, dtype):
        self.parts, self.size, self.dtype = [], 0, dtype
        self.places = {}  # digest of an array -> where it begins

    def add(self, array, once=False):
        """Returns where an array will begin, in elements, on a cache line.

        Args:
            array: Array.
            once: Boolean. Whether it may lie where an equal one does that was added so, too.
        """
        array = fitting(array, self.dtype).reshape(-1)
        digest = hashlib.blake2b(array, digest_size=16).digest() if once else None
        if digest in self.places:
            return self.places[digest]
        start = self.size
        self.parts.append((start, array))
        self.size += round_up(
            array.size + 1, 64 // array.itemsize
        )  # read one past the end at times
        if once:
            self.places[digest] = start
        return start

    def join(self):
        joined = aligned_zeros(max(self.size, 1), self.dtype)
        for start, array in self.parts:
            joined[start : start + array.size] = array
        return joined


def fitting(array, dtype):
    """The array as a contiguous one of a dtype.

    Raises:
        ValueError: if that is one of integers and a number is out of its range.
    """
    array = np.asarray(array)
    if np.dtype(dtype).kind in "iu" and array.dtype != dtype and array.size:
        info = np.iinfo(dtype)
        if array.min() < info.min or array.max() > info.max:
            raise ValueError("an operation of a size that cannot be computed")
    return np.ascontiguousarray(array, dtype)


class Builder:
    """Collects instructions; `lower` of each operation calls its methods.

    Args:
        num_threads: Integer. The threads that will run the program; scratch memory is per thread.
        tuner: `tuning.Tuner`, which measures the candidates for an instruction.
        skip_zeros: Boolean. Whether weights that are zero may be left out. Zero times an infinity
            is NaN, so a program for inputs that are not finite must multiply by them.
        most_floats: Number. The memory that a program may take, in floats.
    """

    def __init__(self, num_threads, tuner, skip_zeros=True, most_floats=math.inf, pools=None):
        self.num_threads = num_threads
        self.most_floats = most_floats
        self.tuner = tuner
        self.skip_zeros = skip_zeros
        self.choices = {}
        self.shapes = {}
        self.node = None
        self._entries = []  # (code, operands, factors, node) or (None, HostStep, None, node)
        self._is_shared = pools is not None  # by bands, of which each has the same weights
        self._pools = pools or (_Pool(np.float32), _Pool(np.int32), _Pool(np.uint16))
        self._constants, self._index, self._short_index = self._pools

    def constant(self, array):
        """Where an array will lie among the constants; one of integers keeps its bits."""
        array = np.asarray(array)
        array = array.view(np.float32) if array.dtype == np.int32 else array
        return self._constants.add(array, self._is_shared)

    def index(self, array):
        return self._index.add(array, self._is_shared)

    def short_index(self, array):
        return self._short_index.add(array, self._is_shared)

    def scratch(self, size):
        """Memory for one instruction, the same for each thread: the tensor and its size for one."""
        size = round_up(size + SLACK)
        return Tensor((self.num_threads, size), "rows"), size

    def emit(self, opcode, operands, factors=()):
        """Appends an instruction; operands are integers, `Tensor`s and `Place`s."""
        self._append((CODES[opcode], list(operands), tuple(factors), self.node))

    def _append(self, entry):
        self.require_instructions(1)
        self._entries.append(entry)

    def require_instructions(self, count):
        """Raises ValueError if that many instructions more are too many, as memory is limited."""
        if len(self._entries) + count > _MOST_INSTRUCTIONS and self.most_floats < math.inf:
            raise ValueError(f"it needs more than {_MOST_INSTRUCTIONS:,} instructions")

    def require_memory(self, floats):
        """Raises ValueError if that many floats are more than a program may take."""
        if floats > self.most_floats:
            raise ValueError(
                f"it needs {4 * floats:,} bytes of memory, more than the "
                f"{4 * self.most_floats:,} that are allowed"
            )

    def repeater(self):
        """A function that appends the instruction emitted last once more."""
        entry = self._entries[-1]
        return lambda: self._append(entry)

    def host(self, function, inputs, outputs, memory=0):
        """Appends a Python function that takes arrays of `inputs` and fills arrays of `outputs`.

        `memory` is how many floats it needs besides these.
        """
        self.require_memory(memory)
        inputs = [self.rows(x) for x in inputs]
        self._append((None, HostStep(function, inputs, outputs), None, self.node))

    def choose(self, description):
        """Notes what was chosen for the node at hand, for the summary."""
        self.choices.setdefault(self.node, []).append(description)

    def lower(self, number, node, values):
        """Appends the instructions of a node.

        Args:
            number: Integer, of the node in its graph.
            node: `graph.Node`.
            values: Dictionary, value -> `Tensor`; it gets those that the node makes.
        """
        self.node = number
        arguments = [values[value] for value in node.inputs]
        if not node.operation.takes_integers and any(x.dtype == "int32" for x in arguments):
            raise ValueError("an operation on floats is given integers")
        outputs = node.operation.lower(self, *arguments)
        if isinstance(outputs, Tensor):
            outputs = [outputs]
        if len(outputs) != len(node.outputs):
            raise ValueError("an operation makes another number of values")
        for tensor in outputs:
            self.require_memory(tensor.size)
        self.shapes[number] = (arguments[0].shape if arguments else None, outputs[0].shape)
        values.update(zip(node.outputs, outputs, strict=True))

    @property
    def num_instructions(self):
        return len(self._entries)

    def alone(self, tuner):
        """A builder of instructions that one thread runs alone, for `emit_bands`."""
        return Builder(1, tuner, self.skip_zeros, self.most_floats, self._pools)

    def emit_bands(self, bands):
        """Appends the instructions of some builders from `alone`, which threads share out.

        What they read and write is their own, but for `tensors.Band`s.
        """
        entries = [band._entries for band in bands]
        self.require_instructions(self.num_threads * sum(map(len, entries)))
        size = round_up(max(_place(_lifetimes(band, _is_own)) for band in entries))
        memory = Tensor((self.num_threads, size), "rows")
        self._append((CODES["bands"], _Bands(entries, memory), (), self.node))

    def planes(self, x):
        """The tensor with its channels first."""
        return x if x.layout == "planes" else self._convert(x, "planes")

    def rows(self, x):
        """The tensor as NumPy has it."""
        return x if x.layout == "rows" else self._convert(x, "rows")

    def _convert(self, x, layout):
        if x.other_layout is None:
            y = Tensor(x.shape, layout, x.dtype)
            to_planes = layout == "planes"
            self.emit(
                "transpose",
                [
                    x, y, x.batch, x.sample_size, y.sample_size,
                    x.pixels if to_planes else x.channels,
                    x.channels if to_planes else x.pixels,
                    x.channels if to_planes else x.plane,
                    y.plane if to_planes else y.channels,
                ],
            )  # fmt: skip
            x.other_layout, y.other_layout = y, x
        return x.other_layout

    def finish(self, inputs, outputs):
        """The program, with a place for each tensor."""
        outputs = [self.rows(x) for x in outputs]
        lifetimes = _lifetimes(self._entries)
        for tensor in inputs:
            lifetimes[tensor] = (-1, lifetimes.get(tensor, (-1, -1))[1])
        for tensor in outputs:
            lifetimes[tensor] = (
                lifetimes.get(tensor, (len(self._entries),))[0],
                len(self._entries),
            )
        arena_size = _place(lifetimes)
        self.require_memory(arena_size)

        native = [entry for entry in self._entries if entry[0] is not None]
        rows, behind = [], []  # of the table: (code, operands, factors, node)
        for code, operands, values, node in native:
            if isinstance(operands, _Bands):
                more, operands = operands.resolve(len(native) + len(behind))
                behind += more
            else:
                operands = [_resolve(operand) for operand in operands]
            rows.append((code, operands, values, node))
        rows += behind
        table = np.zeros((max(len(rows), 1), OPERANDS), np.int64)
        factors = np.zeros((max(len(rows), 1), FACTORS), np.float32)
        for row, (code, operands, values, _) in enumerate(rows):
            table[row, 0] = code
            table[row, 1 : 1 + len(operands)] = operands
            with np.errstate(over="ignore"):
                factors[row, : len(values)] = values
        steps, row = [], 0
        for code, operands, _, _ in self._entries:
            if code is None:
                steps.append(operands)
                continue
            if steps and isinstance(steps[-1], tuple):
                steps[-1] = (steps[-1][0], row + 1)
            else:
                steps.append((row, row + 1))
            row += 1
        return Program(
            table, factors, steps, [row[-1] for row in rows],
            [node for code, _, _, node in self._entries if code is None], *self.pools(),
            list(inputs), outputs, arena_size, self.choices,
            [self.shapes[node] for node in sorted(self.shapes)],
        )  # fmt: skip

    def pools(self):
        """The arrays of constants, int32 and uint16 indices."""
        return tuple(pool.join() for pool in (self._constants, self._index, self._short_index))


@dataclasses.dataclass
class _Bands:
    """The operands of "bands".

    Args:
        bands: List of lists of entries of a `Builder`.
        memory: `Tensor`, (threads, floats), for the tensors of their own.
    """

    bands: list
    memory: Tensor

    def resolve(self, first):
        """The rows that it adds to the table, from `first` on, and the instruction's operands."""
        num_threads, size = self.memory.shape
        rows = [
            (
                code,
                [_resolve(o, self.memory.offset + thread * size) for o in operands],
                values,
                node,
            )
            for thread in range(num_threads)
            for band in self.bands
            for code, operands, values, node in band
        ]
        begins = np.cumsum([0, *map(len, self.bands)])
        return rows, [len(self.bands), first, begins[-1], 1, *begins]


def _is_own(tensor):
    """Whether a tensor of a band lies in the memory of a thread."""
    return tensor.base is tensor


def _resolve(operand, own_memory=0):
    if isinstance(operand, Place):
        return _resolve(operand.tensor, own_memory) + operand.offset
    if isinstance(operand, Tensor):
        start = operand.base.offset + operand.start
        return start + own_memory if _is_own(operand) else start
    return int(operand)


def _tensors(operands):
    """The tensors among the operands of an entry."""
    if isinstance(operands, HostStep):
        return [*operands.inputs, *operands.outputs]
    if isinstance(operands, _Bands):
        used = [x for band in operands.bands for entry in band for x in _tensors(entry[1])]
        return [operands.memory, *(x for x in used if not _is_own(x))]
    found = [x.tensor if isinstance(x, Place) else x for x in operands]
    return [x for x in found if isinstance(x, Tensor)]


def _lifetimes(entries, is_counted=lambda tensor: True):
    """Tensor -> the numbers of the first entry that it is part of, and the last."""
    lifetimes = {}
    for time, (_, operands, _, _) in enumerate(entries):
        for tensor in _tensors(operands):
            if is_counted(tensor):
                first, _ = lifetimes.get(tensor.base, (time, time))
                lifetimes[tensor.base] = (first, time)
    return lifetimes


def _place(lifetimes):
    """Gives each tensor the lowest place that is free while it lives, the largest tensors first."""
    # Of those that have a place: where it begins and ends, when their life begins and ends.
    placed = np.zeros((4, len(lifetimes)), np.int64)
    total = 0
    by_size = sorted(lifetimes.items(), key=lambda item: -item[0].size)
    for count, (tensor, (first, last)) in enumerate(by_size):
        size = round_up(tensor.size + tensor.slack)
        start = MOST_BEFORE
        begins, ends, births, deaths = placed[:, :count]
        others = np.flatnonzero((births <= last) & (first <= deaths))
        order = others[np.argsort(begins[others])]
        for other_start, other_end in zip(
            begins[order].tolist(), ends[order].tolist(), strict=True
        ):
            if start + size <= other_start:
                break
            start = max(start, other_end)
        tensor.offset = start
        placed[:, count] = start, start + size, first, last
        total = max(total, start + size)
    return total
