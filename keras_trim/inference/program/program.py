"""Programs: a table of instructions with their constants and memory."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.instructions import TASKS
from keras_trim.inference.program.tensors import Tensor


@dataclasses.dataclass
class HostStep:
    """A step that runs in Python: a function of arrays."""

    function: object
    inputs: list
    outputs: list


@dataclasses.dataclass
class Program:
    """The instructions for inputs of given shapes.

    Args:
        table: Array, int64, (instructions, OPERANDS).
        factors: Array, float32, (instructions, FACTORS).
        taking: Pair. The range of instructions that copy the inputs into the arena.
        steps: List of `(begin, end)` ranges of instructions and `HostStep`s, in order.
        nodes: List of integers: the node each instruction of the table belongs to.
        host_nodes: List of integers: the node each `HostStep` belongs to.
        constants, index, short_index: Arrays, float32, int32, uint16.
        inputs, outputs: Lists of `Tensor`.
        sources: `Tensor`, (float32 inputs, LINE): holds the address of each, as int64.
        checks: `Tensor`, (float32 inputs, threads, LINE): zeros if the inputs are finite.
        arena_size: Integer. Size of the arena, in floats.
        labels: Dictionary, node -> descriptions of its kernels, for the summary.
        shapes: List of pairs: shapes of the first input, if any, and the first output of each node.
    """

    table: np.ndarray
    factors: np.ndarray
    taking: tuple
    steps: list
    nodes: list
    host_nodes: list
    constants: np.ndarray
    index: np.ndarray
    short_index: np.ndarray
    inputs: list
    sources: Tensor
    checks: Tensor
    outputs: list
    arena_size: int
    labels: dict
    shapes: list

    @property
    def is_native(self):
        """Whether no step runs in Python."""
        return not any(isinstance(step, HostStep) for step in self.steps)

    @property
    def is_one_step(self):
        return self.is_native and len(self.steps) == 1

    @property
    def num_bytes(self):
        """Memory for one run at a time, constants included."""
        arrays = self.table, self.constants, self.index, self.short_index
        return 4 * self.arena_size + sum(array.nbytes for array in arrays)

    def rows_alone(self, begin, end):
        """The rows that run `begin` to `end` on a single thread: `TASKS` become their rows."""
        for i in range(begin, end):
            if self.table[i, 0] == TASKS.code:
                first = self.table[i, TASKS.at.first_row]
                yield from range(first, first + self.table[i, TASKS.at.rows_per_thread])
            else:
                yield i
