"""Packs sparse weights in the order that SpMM kernels read them."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.llvm import LANES
from keras_trim.inference.kernels.spmm.micro_kernel import ROW_GROUPS
from keras_trim.inference.program.constant_pool import fitting


@dataclasses.dataclass
class Packed:
    """Weights of an `spmm` instruction.

    Args:
        runs: Array, int32, (runs, 4). Per run of equally large groups: the first group, the number
            of groups, the rows of each, the first row.
        table: Array, int32, (blocks * groups, 3). Per block of columns and group of rows: the first
            column, the number of columns, the first value.
        offsets: Array, int32, (columns,). Where each column reads, in floats.
        values: Array, float32. Per column, the weights of all rows of its group.
    """

    runs: np.ndarray
    table: np.ndarray
    offsets: np.ndarray
    values: np.ndarray


class SparseColumns:
    """The non-zeros of a sparse matrix whose columns are offsets into a buffer of activations.

    Args:
        rows, columns: Arrays of integers, (non-zeros,), sorted by row, then by column.
        values: Array, float32, (non-zeros,).
        offsets: Array of integers, (number of columns,). Where each column reads, in floats.
        num_rows: Integer.
        row_sets: Integer. Sets of rows with different columns (the groups of a convolution).
        masks: Array, uint16, (taps of a channel, vectors), or None. For an image that is not
            padded, which lanes of a column's vectors are inside of it. Such columns must be packed.
    """

    def __init__(self, rows, columns, values, offsets, num_rows, row_sets=1, masks=None):
        self.rows, self.columns, self.values = rows, columns, values
        self.offsets, self.num_rows, self.row_sets = offsets, num_rows, row_sets
        self.masks = masks

    @classmethod
    def of_kernel(cls, kernel, groups, channel, taps, skip_zeros, masks=None):
        """Creates the columns of a convolution.

        Args:
            kernel: Array, (height, width, input channels / groups, output channels).
            groups: Integer.
            channel: Integer. Floats from one channel of the input to the next.
            taps: Array of integers, (height * width,). Where each tap reads within a channel.
            skip_zeros: Boolean. Whether to leave out weights that are zero.
            masks: As for `SparseColumns`.
        """
        height, width, inputs, outputs = kernel.shape
        matrix = kernel.reshape(height * width, inputs, outputs).transpose(2, 1, 0)
        rows, channels, tap = np.nonzero(matrix if skip_zeros else np.ones_like(matrix))
        values = matrix[rows, channels, tap].astype(np.float32)
        first_channel = rows // (outputs // groups) * inputs
        columns = (first_channel + channels) * len(taps) + tap
        offsets = (np.arange(inputs * groups)[:, None] * channel + taps).reshape(-1)
        return cls(rows, columns, values, offsets, outputs, groups, masks)

    @classmethod
    def of_matrix(cls, matrix, stride, skip_zeros):
        """Creates the columns of an (inputs, outputs) matrix; inputs are `stride` floats apart."""
        return cls.of_kernel(matrix[None, None], 1, stride, np.zeros(1, np.int64), skip_zeros)

    @property
    def density(self):
        """Non-zeros over weights, not counting the zeros between groups."""
        weights = self.num_rows * len(self.offsets) // self.row_sets
        return len(self.values) / max(weights, 1)

    @property
    def is_aligned(self):
        """Whether the offsets of all columns are multiples of a vector."""
        return not np.any(self.offsets % LANES)

    def filled(self, tile):
        """Returns the density of those tiles of `tile` rows x 1 column that are not all zero."""
        if not len(self.values):
            return 0.0
        # Sorting is several times faster than `np.unique`.
        tiles = np.sort(self.rows // tile * len(self.offsets) + self.columns)
        return len(self.values) / (tile * (1 + np.count_nonzero(np.diff(tiles))))

    def pack(self, groups, blocks, block, offsets):
        """Packs the weights.

        Args:
            groups: Array of integers, (groups, 2): the first row and number of rows of each group.
            blocks: Integer. The number of blocks that the columns are split into.
            block: Array of integers, (columns,). The block of each column.
            offsets: Array of integers, (columns,). Where the kernel reads each column.
        """
        group_of_row = np.repeat(np.arange(len(groups)), groups[:, 1])
        group = group_of_row[self.rows]
        block = block[self.columns]
        # One key per (block, group, column), which the rows of a group share.
        key = (block * len(groups) + group) * len(self.offsets) + self.columns
        if len(groups) == self.num_rows:  # single rows share nothing
            # Rows are in order, so sort by block only: 16-bit keys take a tenth of the time.
            order = np.argsort(block.astype(np.uint16), kind="stable")
            keys, where = key[order], np.empty(len(key), np.int64)
            where[order] = np.arange(len(key))
        else:
            keys, where = np.unique(key, return_inverse=True)
        block_and_group, columns = np.divmod(keys, len(self.offsets))
        sizes = groups[block_and_group % len(groups), 1]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        values = np.zeros(starts[-1], np.float32)
        values[starts[where] + self.rows - groups[group, 0]] = self.values
        first = np.searchsorted(block_and_group, np.arange(blocks * len(groups) + 1))
        table = np.stack([first[:-1], np.diff(first), starts[first[:-1]]], axis=1)
        return Packed(
            _runs(groups),
            fitting(table, np.int32),
            fitting(offsets[columns], np.int32),
            values,
        )


def _runs(groups):
    change = np.flatnonzero(np.diff(groups[:, 1], prepend=0))
    lengths = np.diff(np.append(change, len(groups)))
    return np.stack([change, lengths, groups[change, 1], groups[change, 0]], 1).astype(np.int32)


def row_groups(columns, tile):
    """Groups rows: one by one, or as many together as a register tile takes.

    Args:
        columns: `SparseColumns`.
        tile: Integer. Rows of a group, if there are enough: 1 or one of `ROW_GROUPS`.

    Returns:
        Array of int64, (groups, 2): first row and number of rows of each group.
    """
    per_set = columns.num_rows // columns.row_sets
    sizes = np.array(_split(per_set, tile) * columns.row_sets, np.int64)
    return np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)


def _split(rows, tile):
    """Splits rows into tiles, and the remainder into smaller tiles."""
    sizes = [tile] * (rows // tile)
    left = rows - sum(sizes)
    # 6 + 2 rows take longer than 4 + 4.
    if (tile, left) == (6, 2) and sizes:
        return [*sizes[:-1], 4, 4]
    for size in (*ROW_GROUPS, 1):
        while size < tile and left >= size:
            sizes.append(size)
            left -= size
    return sizes
