"""Builds a program: collects instructions and constants, then plans memory."""

import collections
import math

import numpy as np

from keras_trim.inference.kernels.instructions import (
    FACTORS,
    OPERANDS,
    TAKE_INPUT,
    TASKS,
    TRANSPOSE,
)
from keras_trim.inference.kernels.llvm import LINE
from keras_trim.inference.program.constant_pool import ConstantPool
from keras_trim.inference.program.memory_planner import (
    Entry,
    Tasks,
    is_own,
    lifetimes_of,
    plan_memory,
    resolve,
)
from keras_trim.inference.program.program import HostStep, Program
from keras_trim.inference.program.tensors import SLACK, Place, Tensor, round_up

_MOST_INSTRUCTIONS = 1 << 19  # if memory is limited; planning this many takes some seconds


class Builder:
    """Collects instructions. The lowering of each operation calls its methods.

    Args:
        num_threads: Integer. The threads that will run the program; scratch memory is per thread.
        tuner: The object that lowering chooses candidates with.
        skip_zeros: Boolean. Whether to skip zero weights. Zero times infinity is NaN, so a program
            for inputs that are not finite must multiply by them.
        most_floats: Number. The memory limit of the program, in floats.
        parent: `Builder` that this one shares constants with, or None.
    """

    def __init__(self, num_threads, tuner, skip_zeros=True, most_floats=math.inf, parent=None):
        self.num_threads = num_threads
        self.most_floats = most_floats
        self.tuner = tuner
        self.skip_zeros = skip_zeros
        self.labels = {}
        self.shapes = {}
        self.node = None
        self.padded = {}  # an image and its padding -> the padded copy
        self._converted = {} if parent is None else collections.ChainMap({}, parent._converted)
        self._entries = []  # `Entry`s
        self._is_shared = parent is not None  # all bands have the same weights
        self._pools = (
            parent._pools
            if parent
            else (ConstantPool(np.float32), ConstantPool(np.int32), ConstantPool(np.uint16))
        )
        self._constants, self._index, self._short_index = self._pools

    def constant(self, array):
        """Adds a constant, float32 or the bits of int32; returns its offset in the pool."""
        array = np.asarray(array)
        array = array.view(np.float32) if array.dtype == np.int32 else array
        return self._constants.add(array, self._is_shared)

    def index(self, array):
        return self._index.add(array, self._is_shared)

    def short_index(self, array):
        return self._short_index.add(array, self._is_shared)

    def scratch(self, size):
        """Scratch memory for one instruction: a tensor, and the floats per thread."""
        size = round_up(size + SLACK)
        return Tensor((self.num_threads, size), "NHWC"), size

    def emit(self, instruction, **operands):
        """Appends an instruction.

        Args:
            instruction: `kernels.instructions.Instruction`.
            operands: Operands by name, integers, `Tensor`s or `Place`s; factors by name, floats.

        Raises:
            TypeError: if an operand is missing, unknown, or of the wrong kind.
        """
        self._append(_entry(instruction, operands, self.node))

    def _append(self, entry):
        self.require_instructions(1)
        self._entries.append(entry)

    def require_instructions(self, count):
        """Raises ValueError if memory is limited and `count` more instructions are too many."""
        if len(self._entries) + count > _MOST_INSTRUCTIONS and self.most_floats < math.inf:
            raise ValueError(f"it needs more than {_MOST_INSTRUCTIONS:,} instructions")

    def require_memory(self, floats):
        """Raises ValueError if a program may not take this many floats."""
        if floats > self.most_floats:
            raise ValueError(
                f"it needs {4 * floats:,} bytes of memory, more than the "
                f"{4 * self.most_floats:,} that are allowed"
            )

    def repeater(self):
        """Returns a function that re-emits the last instruction."""
        entry = self._entries[-1]
        return lambda: self._append(entry)

    def host(self, function, inputs, outputs, memory=0):
        """Appends a Python function that reads the arrays of `inputs` and fills those of `outputs`.

        `memory` is how many floats it needs besides these.
        """
        self.require_memory(memory)
        inputs = [self.to_nhwc(x) for x in inputs]
        self._append(Entry(None, HostStep(function, inputs, outputs), (), self.node))

    def label(self, description):
        """Describes how the current node runs, for the summary."""
        self.labels.setdefault(self.node, []).append(description)

    @property
    def num_instructions(self):
        return len(self._entries)

    @property
    def num_bytes(self):
        """Bytes of constants and indices."""
        return sum(pool.nbytes for pool in self._pools)

    def alone(self, tuner):
        """Returns a builder for a task: instructions that one thread runs alone."""
        return Builder(1, tuner, self.skip_zeros, self.most_floats, self)

    def emit_tasks(self, bands):
        """Appends tasks, one per builder from `alone`, for the threads to share out.

        Each thread has memory for the tasks' own tensors; views of other tensors stay shared.
        """
        entries = [band._entries for band in bands]
        self.require_instructions(self.num_threads * sum(map(len, entries)))
        size = round_up(max(plan_memory(lifetimes_of(band, is_own)) for band in entries))
        memory = Tensor((self.num_threads, size), "NHWC")
        self._append(Entry(TASKS, Tasks(entries, memory), (), self.node))

    def to_nchw(self, x):
        """The tensor in NCHW; emits a conversion if necessary."""
        return x if x.layout == "NCHW" else self._convert(x, "NCHW")

    def to_nhwc(self, x):
        """The tensor in NHWC; emits a conversion if necessary."""
        return x if x.layout == "NHWC" else self._convert(x, "NHWC")

    def other_layout(self, x):
        """The copy of a tensor in the other layout, or None."""
        return self._converted.get(x)

    def forget_copies(self):
        """Forgets padded and converted copies, so later instructions make their own."""
        self.padded.clear()
        self._converted.clear()

    def _convert(self, x, layout):
        if x not in self._converted:
            y = Tensor(x.shape, layout, x.dtype)
            to_planes = layout == "NCHW"
            self.emit(
                TRANSPOSE, x=x, y=y, batch=x.batch, x_sample=x.sample_size, y_sample=y.sample_size,
                rows=x.pixels if to_planes else x.channels,
                columns=x.channels if to_planes else x.pixels,
                x_row=x.channels if to_planes else x.plane,
                y_row=y.plane if to_planes else y.channels,
            )  # fmt: skip
            self._converted[x], self._converted[y] = y, x
        return self._converted[x]

    def finish(self, inputs, outputs):
        """Plans memory and returns the program."""
        outputs = [self.to_nhwc(x) for x in outputs]
        taken = [x for x in inputs if x.dtype == "float32"]
        sources = Tensor((len(taken), LINE), "NHWC")
        checks = Tensor((len(taken), self.num_threads, LINE), "NHWC")
        takes = [
            _entry(
                TAKE_INPUT,
                {
                    "source": Place(sources, i * LINE),
                    "y": x,
                    "size": x.size,
                    "checks": Place(checks, i * self.num_threads * LINE),
                },
                None,
            )
            for i, x in enumerate(taken)
        ]
        entries = takes + self._entries
        lifetimes = lifetimes_of(entries)
        for tensor in (*inputs, sources):
            lifetimes[tensor] = (-1, lifetimes.get(tensor, (-1, -1))[1])
        for tensor in (*(x.base for x in outputs), checks):
            lifetimes[tensor] = (lifetimes.get(tensor, (len(entries),))[0], len(entries))
        arena_size = plan_memory(lifetimes)
        self.require_memory(arena_size)

        table, factors, nodes = _encoded([entry for entry in entries if entry.instruction])
        steps, row = [], len(takes)
        for entry in self._entries:
            if entry.instruction is None:
                steps.append(entry.operands)
                continue
            if steps and isinstance(steps[-1], tuple):
                steps[-1] = (steps[-1][0], row + 1)
            else:
                steps.append((row, row + 1))
            row += 1
        return Program(
            table, factors, (0, len(takes)), steps, nodes,
            [entry.node for entry in self._entries if entry.instruction is None], *self.pools(),
            list(inputs), sources, checks, outputs, arena_size, self.labels,
            [self.shapes[node] for node in sorted(self.shapes)],
        )  # fmt: skip

    def pools(self):
        """The arrays of constants, int32 and uint16 indices."""
        return tuple(pool.join() for pool in (self._constants, self._index, self._short_index))


def _entry(instruction, values, node):
    """An `Entry` with checked operands."""
    operands, factors = instruction.encode(values)
    kinds = [operand.kind for operand in instruction.operands for _ in range(operand.count)]
    for kind, operand in zip(kinds, operands, strict=True):
        is_place = isinstance(operand, Tensor | Place)
        if is_place != (kind == "arena") and (is_place or operand != 0):
            raise TypeError(
                f"The instruction {instruction.name} takes no such operand. "
                f"Received: {operand!r:.100} in the place of {kind}"
            )
    return Entry(instruction, operands, tuple(factors), node)


def _encoded(entries):
    """The table of instructions, the table of factors, and the node of each row."""
    rows, inner = [], []  # `(instruction, operands, factors, node)`
    for entry in entries:
        operands = entry.operands
        if isinstance(operands, Tasks):
            more, operands = operands.resolve(len(entries) + len(inner))
            inner += more
        else:
            operands = [resolve(operand) for operand in operands]
        rows.append((entry.instruction, operands, entry.factors, entry.node))
    rows += inner
    table = np.zeros((max(len(rows), 1), OPERANDS), np.int64)
    factors = np.zeros((max(len(rows), 1), FACTORS), np.float32)
    for row, (instruction, operands, values, _) in enumerate(rows):
        table[row, 0] = instruction.code
        table[row, 1 : 1 + len(operands)] = operands
        with np.errstate(over="ignore"):
            factors[row, : len(values)] = values
    return table, factors, [row[-1] for row in rows]
