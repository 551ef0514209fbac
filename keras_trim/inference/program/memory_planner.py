"""Assigns tensors their places in the arena, and operands the integers that follow from them."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.dwconv.rolling import MOST_BEFORE
from keras_trim.inference.program.program import HostStep
from keras_trim.inference.program.tensors import Place, Tensor, round_up


@dataclasses.dataclass(frozen=True)
class Entry:
    """An instruction of a program whose tensors have no place yet, or a step in Python.

    Args:
        instruction: `kernels.instructions.Instruction`, or None of a step in Python.
        operands: List of integers, `Tensor`s and `Place`s; `Tasks`; or `HostStep`.
        factors: Tuple of floats.
        node: Integer, the number of the node that it belongs to, or None.
    """

    instruction: object
    operands: object
    factors: tuple
    node: int | None


@dataclasses.dataclass
class Tasks:
    """The operands of `TASKS`.

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
    """Whether a tensor of a band lies in the memory of a thread."""
    return tensor.base is tensor


def resolve(operand, own_memory=0):
    """The integer that an operand is in the table.

    Args:
        operand: `Tensor`, `Place` or integer.
        own_memory: Integer. Where the memory of a thread begins that runs a band.
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
    """Dictionary: `Tensor` -> the first and the last entry that uses it."""
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
        lifetimes: Dictionary, `Tensor` -> first and last entry that uses it.

    Returns:
        Integer: the size of the arena, in floats.
    """
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
