"""What the engine runs: a table of instructions, and what they work on."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.instructions import TASKS
from keras_trim.inference.program.tensors import Tensor


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
        taking: Pair. The range of instructions that take the inputs.
        steps: List of `(begin, end)` ranges of instructions and `HostStep`s, in order.
        nodes: List of integers: the node each instruction of the table belongs to.
        host_nodes: List of integers: the node each `HostStep` belongs to.
        constants, index, short_index: Arrays, float32, int32, uint16.
        inputs, outputs: Lists of `Tensor`.
        sources: `Tensor`, (inputs of float32, LINE): where the address of each stands, as int64.
        checks: `Tensor`, (inputs of float32, threads, LINE), which tells whether they are finite.
        arena_size: Integer. Floats of memory it needs to run.
        labels: Dictionary, node -> list of what was chosen for it, for the summary.
        shapes: List of pairs: the shapes of the first input, if any, and output of each node.
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
        """Whether nothing of it runs in Python."""
        return not any(isinstance(step, HostStep) for step in self.steps)

    @property
    def is_one_step(self):
        return self.is_native and len(self.steps) == 1

    @property
    def num_bytes(self):
        """What it takes of memory, with all constants, for one run at a time."""
        arrays = self.table, self.constants, self.index, self.short_index
        return 4 * self.arena_size + sum(array.nbytes for array in arrays)

    def rows_alone(self, begin, end):
        """The rows of the table that one thread runs, from `begin` to `end`, in order."""
        for i in range(begin, end):
            if self.table[i, 0] == TASKS.code:
                first = self.table[i, TASKS.at.first_row]
                yield from range(first, first + self.table[i, TASKS.at.rows_per_thread])
            else:
                yield i
