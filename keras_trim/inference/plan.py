"""Collects the instructions of a program."""

import math

import numpy as np

from keras_trim.inference.kernels.program import CODES, FACTORS, OPERANDS
from keras_trim.inference.kernels.vector import LINE
from keras_trim.inference.placement import Bands, is_own, lifetimes_of, place, resolve
from keras_trim.inference.pools import Pool
from keras_trim.inference.program import HostStep, Program
from keras_trim.inference.tensors import SLACK, Place, Tensor, round_up

_MOST_INSTRUCTIONS = 1 << 19  # where memory is limited; planning them takes some seconds


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
        self.padded = {}  # an image and how it is padded -> the copy of it
        self._entries = []  # (code, operands, factors, node) or (None, HostStep, None, node)
        self._is_shared = pools is not None  # by bands, of which each has the same weights
        self._pools = pools or (Pool(np.float32), Pool(np.int32), Pool(np.uint16))
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

    @property
    def num_bytes(self):
        """Of constants and indices."""
        return sum(pool.nbytes for pool in self._pools)

    def alone(self, tuner):
        """A builder of instructions that one thread runs alone, for `emit_bands`."""
        return Builder(1, tuner, self.skip_zeros, self.most_floats, self._pools)

    def emit_bands(self, bands):
        """Appends the instructions of some builders from `alone`, which threads share out.

        What they read and write is their own, but for parts of other tensors.
        """
        entries = [band._entries for band in bands]
        self.require_instructions(self.num_threads * sum(map(len, entries)))
        size = round_up(max(place(lifetimes_of(band, is_own)) for band in entries))
        memory = Tensor((self.num_threads, size), "rows")
        self._append((CODES["bands"], Bands(entries, memory), (), self.node))

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
        taken = [x for x in inputs if x.dtype == "float32"]
        sources = Tensor((len(taken), LINE), "rows")
        checks = Tensor((len(taken), self.num_threads, LINE), "rows")
        takes = [
            (
                CODES["take_input"],
                [Place(sources, i * LINE), x, x.size, Place(checks, i * self.num_threads * LINE)],
                (), None,
            )
            for i, x in enumerate(taken)
        ]  # fmt: skip
        entries = takes + self._entries
        lifetimes = lifetimes_of(entries)
        for tensor in (*inputs, sources):
            lifetimes[tensor] = (-1, lifetimes.get(tensor, (-1, -1))[1])
        for tensor in (*(x.base for x in outputs), checks):
            lifetimes[tensor] = (lifetimes.get(tensor, (len(entries),))[0], len(entries))
        arena_size = place(lifetimes)
        self.require_memory(arena_size)

        native = [entry for entry in entries if entry[0] is not None]
        rows, behind = [], []  # of the table: (code, operands, factors, node)
        for code, operands, values, node in native:
            if isinstance(operands, Bands):
                more, operands = operands.resolve(len(native) + len(behind))
                behind += more
            else:
                operands = [resolve(operand) for operand in operands]
            rows.append((code, operands, values, node))
        rows += behind
        table = np.zeros((max(len(rows), 1), OPERANDS), np.int64)
        factors = np.zeros((max(len(rows), 1), FACTORS), np.float32)
        for row, (code, operands, values, _) in enumerate(rows):
            table[row, 0] = code
            table[row, 1 : 1 + len(operands)] = operands
            with np.errstate(over="ignore"):
                factors[row, : len(values)] = values
        steps, row = [], len(takes)
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
            table, factors, (0, len(takes)), steps, [row[-1] for row in rows],
            [node for code, _, _, node in self._entries if code is None], *self.pools(),
            list(inputs), sources, checks, outputs, arena_size, self.choices,
            [self.shapes[node] for node in sorted(self.shapes)],
        )  # fmt: skip

    def pools(self):
        """The arrays of constants, int32 and uint16 indices."""
        return tuple(pool.join() for pool in (self._constants, self._index, self._short_index))
