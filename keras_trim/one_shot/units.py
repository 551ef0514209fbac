"""Chooses the units of a pattern to keep, in matrices (systems, inputs, outputs).

`keras_trim.patterns` chooses by magnitude, on the backend, in a training step. Here, scores are any
nonnegative float64 numbers, a few rows may be chosen at a time, and the code is NumPy.
"""

import dataclasses
import math

import numpy as np

from keras_trim.patterns import BlockPattern, NMPattern


def keep_largest(scores, num_pruned):
    """Bool array: False for the `num_pruned` smallest scores; among ties, for the last ones."""
    if num_pruned <= 0:
        return np.ones(scores.shape, bool)
    flat = scores.reshape(-1)
    if num_pruned >= flat.size:
        return np.zeros(scores.shape, bool)
    threshold = np.partition(flat, num_pruned)[num_pruned]
    keep = flat >= threshold
    surplus = num_pruned - (flat.size - np.count_nonzero(keep))
    if surplus:
        ties = np.flatnonzero(flat == threshold)
        keep[ties[ties.size - surplus :]] = False
    return keep.reshape(scores.shape)


@dataclasses.dataclass(frozen=True)
class Units:
    """Single weights, blocks or N:M groups, and how many of them to prune.

    Args:
        shape: Tuple (systems, inputs, outputs).
        channels: Integer. Consecutive inputs that belong together; no unit crosses their bounds.
        num_pruned: Integer. Units to prune; for N:M, weights to prune per group.
        height, width: Integers. Size of a block.
        group: Integer, or `None`. Size of an N:M group.
    """

    shape: tuple
    channels: int
    num_pruned: int
    height: int = 1
    width: int = 1
    group: int | None = None

    @classmethod
    def of(cls, spec, product, sparsity):
        """The units of a product for a sparsity.

        Args:
            spec: `PruningSpec` of the product's variable.
            product: `Product`.
            sparsity: Float.

        Returns:
            `Units`, or a string: why the pattern does not fit.
        """
        pattern = spec.pattern
        num_pruned = pattern.count_pruned(sparsity, spec.final_sparsity)
        shape, channels = product.shape, product.channels
        if isinstance(pattern, NMPattern):
            if product.is_divided and channels % pattern.group:
                return "groups that cross the parts of a wide layer"
            return cls(shape, channels, num_pruned, group=pattern.group)
        if isinstance(pattern, BlockPattern):
            height, width = pattern.block_size
            crosses = shape[2] % width or pattern.num_units != _count_blocks(
                shape, channels, height, width
            )
            if shape[0] > 1 and crosses:
                return "blocks that cross the groups of a convolution or the parts of a wide layer"
            return cls(shape, channels, num_pruned, height, width)
        return cls(shape, channels, num_pruned)

    @property
    def row_height(self):
        """Integer: how many consecutive inputs a unit covers."""
        return self.group or self.height

    def row_starts(self, start=0, stop=None):
        """Array: where units begin among inputs `start` to `stop`, relative to `start`."""
        stop = self.shape[1] if stop is None else stop
        starts = np.arange(self.shape[1])
        starts = starts[(starts % self.channels) % self.row_height == 0]
        return starts[(starts >= start) & (starts < stop)] - start

    def num_units(self, start, stop):
        """Integer: how many units (single weights, blocks) inputs `start` to `stop` have."""
        columns = -(-self.shape[2] // self.width)
        return self.shape[0] * len(self.row_starts(start, stop)) * columns

    def keep(self, scores, start=0, num_pruned=None):
        """Bool array of the scores' shape, True where a weight is kept.

        Args:
            scores: Float64 array (systems, rows, outputs) of consecutive inputs. Units must begin
                at the first row and end at the last. The scores of a unit add up.
            start: Integer. The first of these inputs.
            num_pruned: Integer. How many of these units to prune; `self.num_pruned` by default.
        """
        num_pruned = self.num_pruned if num_pruned is None else num_pruned
        rows = self.row_starts(start, start + scores.shape[1])
        if self.group is not None:
            return self._keep_in_groups(scores, rows)
        if (self.height, self.width) == (1, 1):
            return keep_largest(scores, num_pruned)
        columns = np.arange(0, scores.shape[2], self.width)
        pooled = np.add.reduceat(np.add.reduceat(scores, rows, axis=1), columns, axis=2)
        kept = keep_largest(pooled, num_pruned)
        heights = np.diff(np.append(rows, scores.shape[1]))
        widths = np.diff(np.append(columns, scores.shape[2]))
        return np.repeat(np.repeat(kept, heights, axis=1), widths, axis=2)

    def _keep_in_groups(self, scores, rows):
        heights = np.diff(np.append(rows, scores.shape[1]))
        places = rows[:, None] + np.arange(self.group)
        is_there = np.arange(self.group) < heights[:, None]
        padded = np.where(
            is_there[None, :, :, None], scores[:, np.minimum(places, scores.shape[1] - 1)], -1.0
        )
        order = np.argsort(-padded, axis=2, kind="stable")
        kept = np.zeros(padded.shape, bool)
        np.put_along_axis(kept, order[:, :, : self.group - self.num_pruned], True, axis=2)
        return kept[:, is_there]


def _count_blocks(shape, channels, height, width):
    systems, inputs, outputs = shape
    return (
        systems * (inputs // channels) * math.ceil(channels / height) * math.ceil(outputs / width)
    )
