"""Assigns tensors places in the arena, and resolves operands to integers."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.dwconv.rolling import MOST_BEFORE
from keras_trim.inference.program.program import HostStep
from keras_trim.inference.program.tensors import Place, Tensor, round_up


@dataclasses.dataclass(frozen=True)
class Entry:
    """An instruction whose tensors have no place in the arena yet, or a step in Python.

    Args:
        instruction: `kernels.instructions.Instruction`, or None for a step in Python.
        operands: List of integers, `Tensor`s and `Place`s; `Tasks`; or `HostStep`.
        factors: Tuple of floats.
        node: Integer, the index of its node in the graph, or None.
    """

    instruction: object
    operands: object
    factors: tuple
    node: int | None


@dataclasses.dataclass
class Tasks:
    """The operands of `TASKS`.

    Args:
        bands: List of tasks, each the list of entries of a `Builder`.
        memory: `Tensor`, (threads, floats), for the tasks' own tensors.
    """

    bands: list
    memory: Tensor

    def resolve(self, first):
        """The rows it adds to the table at `first`, and the operands of `TASKS`."""
        num_threads, size = self.memory.shape
        rows = [
            (
                entry.instruction,
                [resolve(o, self.memory.offset + thread * size) for o in entry.operands],
                entry.factors,
                entry.node,
            )
            for thread in range(num_threads)
            for band in self.bands
            for entry in band
        ]
        begins = np.cumsum([0, *map(len, self.bands)])
        return rows, [len(self.bands), first, begins[-1], 1, *begins]


def is_own(tensor):
    """Whether a tensor of a task lies in the thread's memory, not within a shared tensor."""
    return tensor.base is tensor


def resolve(operand, own_memory=0):
    """The integer that stands for an operand in the table.

    Args:
        operand: `Tensor`, `Place` or integer.
        own_memory: Integer. Where the memory of the task's thread begins.
    """
    if isinstance(operand, Place):
        return resolve(operand.tensor, own_memory) + operand.offset
    if isinstance(operand, Tensor):
        start = operand.base.offset + operand.start
        return start + own_memory if is_own(operand) else start
    return int(operand)


def _tensors(operands):
    """The tensors among the operands of an entry."""
    if isinstance(operands, HostStep):
        return [*operands.inputs, *operands.outputs]
    if isinstance(operands, Tasks):
        used = [x for band in operands.bands for entry in band for x in _tensors(entry.operands)]
        return [operands.memory, *(x for x in used if not is_own(x))]
    found = [x.tensor if isinstance(x, Place) else x for x in operands]
    return [x for x in found if isinstance(x, Tensor)]


def lifetimes_of(entries, is_counted=lambda tensor: True):
    """Dictionary: `Tensor` -> the first and last entry that use it."""
    lifetimes = {}
    for time, entry in enumerate(entries):
        for tensor in _tensors(entry.operands):
            if is_counted(tensor):
                first, _ = lifetimes.get(tensor.base, (time, time))
                lifetimes[tensor.base] = (first, time)
    return lifetimes


def plan_memory(lifetimes):
    """Gives each tensor the lowest place that is free during its lifetime, largest tensors first.

    Args:
        lifetimes: Dictionary, `Tensor` -> the first and last entry that use it.

    Returns:
        Integer: the size of the arena, in floats.
    """
    # Placed tensors: rows are begin and end in the arena, first and last entry.
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
