"""Where the tensors of a program lie in its memory, and what operands are when that is known."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.lines import MOST_BEFORE
from keras_trim.inference.program import HostStep
from keras_trim.inference.tensors import Place, Tensor, round_up


@dataclasses.dataclass
class Bands:
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
                [resolve(o, self.memory.offset + thread * size) for o in operands],
                values,
                node,
            )
            for thread in range(num_threads)
            for band in self.bands
            for code, operands, values, node in band
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
    if isinstance(operands, Bands):
        used = [x for band in operands.bands for entry in band for x in _tensors(entry[1])]
        return [operands.memory, *(x for x in used if not is_own(x))]
    found = [x.tensor if isinstance(x, Place) else x for x in operands]
    return [x for x in found if isinstance(x, Tensor)]


def lifetimes_of(entries, is_counted=lambda tensor: True):
    """Tensor -> the numbers of the first entry that it is part of, and the last."""
    lifetimes = {}
    for time, (_, operands, _, _) in enumerate(entries):
        for tensor in _tensors(operands):
            if is_counted(tensor):
                first, _ = lifetimes.get(tensor.base, (time, time))
                lifetimes[tensor.base] = (first, time)
    return lifetimes


def place(lifetimes):
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
