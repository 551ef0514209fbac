"""Sparsity patterns: which shape zeros take, as pure functions from weights to a mask.

A pattern prunes *units*: single weights, whole blocks, or positions in an N:M group. The schedule
says how many units to prune (an integer), and the pattern decides which ones. A mask is True where
a weight is kept.
"""

import dataclasses
import math
import numbers

import numpy as np
from keras import ops

from keras_trim.selection import keep_largest, magnitude_bits


@dataclasses.dataclass(frozen=True)
class MatrixView:
    """How to read a weight as a stack of matrices (inputs x outputs).

    Each field is a tuple of axes; together they are a permutation of all the weight's axes. A dense
    kernel is one matrix; a convolution kernel is one matrix per position of its window.

    Args:
        stack: Axes that number the matrices: the window of a convolution.
        inputs: Axes that are summed over: the input channels.
        outputs: Axes of the output channels.
    """

    stack: tuple
    inputs: tuple
    outputs: tuple

    @classmethod
    def default(cls, rank):
        """Takes the last two axes as inputs and outputs, as in dense and convolution kernels."""
        if rank == 1:
            return cls((), (0,), ())
        return cls(tuple(range(rank - 2)), (rank - 2,), (rank - 1,))

    def shape(self, shape):
        """Returns the shape (matrices, inputs, outputs) for a weight of this shape."""
        return tuple(
            math.prod(shape[axis] for axis in axes)
            for axes in (self.stack, self.inputs, self.outputs)
        )

    def to_matrices(self, weights):
        order = self.stack + self.inputs + self.outputs
        return ops.reshape(ops.transpose(weights, order), self.shape(weights.shape))

    def from_matrices(self, matrices, shape):
        order = self.stack + self.inputs + self.outputs
        permuted = ops.reshape(matrices, tuple(shape[axis] for axis in order))
        return ops.transpose(permuted, tuple(int(i) for i in np.argsort(order)))


def _round_product(count, fraction):
    """Computes `round(count * fraction)` as int32 for a float32 tensor, exact in every digit.

    A float32 product is only exact to 24 bits. Splitting both factors at 12 bits keeps every
    partial product within 24 bits.
    """
    fraction = ops.cast(fraction, "float32")
    high_count, low_count = divmod(count, 4096)
    high = ops.floor(fraction * 4096.0)
    low = fraction * 4096.0 - high  # below 1, exact
    whole = high_count * ops.cast(high, "int32")
    rest = (low_count * high + low_count * low) / 4096.0 + high_count * low
    return whole + ops.cast(ops.round(rest), "int32")


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Element-wise (unstructured) sparsity, and the base class of structured patterns.

    Args:
        shape: Tuple of integers. The weight's shape.
        view: The weight's `MatrixView`.
    """

    shape: tuple
    view: MatrixView

    name = "element"

    @property
    def num_units(self):
        return math.prod(self.shape)

    def count_pruned(self, sparsity, final_sparsity=None):
        """Returns how many units to prune for a sparsity. At least one unit is always kept.

        Args:
            sparsity: Float, or scalar float tensor.
            final_sparsity: Float. The sparsity at which the pattern is complete (N:M only).

        Returns:
            Integer, or scalar int32 tensor.
        """
        del final_sparsity
        if isinstance(sparsity, numbers.Real):
            return min(round(self.num_units * float(sparsity)), self.num_units - 1)
        return ops.minimum(_round_product(self.num_units, sparsity), self.num_units - 1)

    def mask(self, weights, num_pruned):
        """Returns a bool tensor of the weights' shape, True where a weight is kept.

        Args:
            weights: Float tensor of shape `self.shape`.
            num_pruned: Integer or scalar int32 tensor. The number of units to prune.
        """
        return keep_largest(weights, num_pruned)

    def count_zeros(self, num_pruned):
        """Returns the minimum number of zero weights in this many pruned units."""
        return num_pruned

    def get_config(self):
        return {}


@dataclasses.dataclass(frozen=True)
class BlockPattern(Pattern):
    """Prunes whole blocks of the (inputs, outputs) matrix, those of least pooled magnitude.

    Blocks start at index 0. If the block size does not divide the matrix, the blocks at its edge
    are smaller, and AVG is the mean over the weights they have.

    Args:
        block_size: Tuple (inputs, outputs) of integers.
        block_pooling_type: `"AVG"` or `"MAX"` of the magnitudes in a block.
    """

    block_size: tuple = (1, 1)
    block_pooling_type: str = "AVG"

    @property
    def name(self):
        return f"block {self.block_size[0]}x{self.block_size[1]} {self.block_pooling_type}"

    @property
    def _grid(self):
        stack, inputs, outputs = self.view.shape(self.shape)
        return stack, -(-inputs // self.block_size[0]), -(-outputs // self.block_size[1])

    @property
    def num_units(self):
        return math.prod(self._grid)

    def _block_sizes(self):
        """Array of the grid's shape: the number of weights in each block."""
        stack, inputs, outputs = self.view.shape(self.shape)
        _, rows, columns = self._grid
        heights = np.minimum(self.block_size[0], inputs - np.arange(rows) * self.block_size[0])
        widths = np.minimum(self.block_size[1], outputs - np.arange(columns) * self.block_size[1])
        return np.broadcast_to(np.outer(heights, widths), (stack, rows, columns))

    def mask(self, weights, num_pruned):
        keep = keep_largest(self._pool(weights), num_pruned)
        _, inputs, outputs = self.view.shape(self.shape)
        keep = ops.repeat(keep, self.block_size[0], axis=1)[:, :inputs]
        keep = ops.repeat(keep, self.block_size[1], axis=2)[:, :, :outputs]
        return self.view.from_matrices(keep, self.shape)

    def _pool(self, weights):
        if weights.dtype in ("float16", "bfloat16") or "16" in str(weights.dtype):
            weights = ops.cast(weights, "float32")
        magnitudes = ops.abs(self.view.to_matrices(weights))
        stack, inputs, outputs = self.view.shape(self.shape)
        _, rows, columns = self._grid
        height, width = self.block_size
        padding = ((0, 0), (0, rows * height - inputs), (0, columns * width - outputs))
        if any(after for _, after in padding):
            magnitudes = ops.pad(magnitudes, padding)
        blocks = ops.reshape(magnitudes, (stack, rows, height, columns, width))
        combine = ops.maximum if self.block_pooling_type == "MAX" else ops.add
        pooled = _fold(_fold(blocks, 4, combine), 2, combine)
        pooled = ops.reshape(pooled, (stack, rows, columns))
        if self.block_pooling_type == "AVG":
            # Whole blocks sort the same by sum as by mean. Smaller blocks are scaled up.
            scale = height * width / self._block_sizes()
            if (scale != 1).any():
                pooled = pooled * ops.cast(ops.convert_to_tensor(scale), pooled.dtype)
        return pooled

    def count_zeros(self, num_pruned):
        return int(np.sort(self._block_sizes(), axis=None)[:num_pruned].sum())

    def get_config(self):
        return {
            "block_size": list(self.block_size),
            "block_pooling_type": self.block_pooling_type,
        }


def _fold(values, axis, combine):
    """Reduces an axis by repeated halving. In this order, every backend rounds the same."""
    size = values.shape[axis]
    while size > 1:
        half = size // 2
        low, high, rest = ops.split(values, (half, 2 * half), axis=axis)
        values = combine(low, high)
        if size % 2:
            values = ops.concatenate((values, rest), axis=axis)
        size = half + size % 2
    return values


@dataclasses.dataclass(frozen=True)
class NMPattern(Pattern):
    """N:M sparsity: of every `group` consecutive input channels, `zeros` are zero.

    Its name is (group - zeros):group, as hardware vendors write it: 2:4 keeps two of four. The
    pattern is the target; before `final_sparsity` is reached, fewer positions of each group are
    pruned. A shorter last group keeps at most as many weights as a whole one, as if padded with
    zeros. (Mishra et al., "Accelerating sparse deep neural networks",
    https://arxiv.org/abs/2104.08378.)

    Args:
        zeros: Integer. Zeros in each group.
        group: Integer. The number of consecutive weights in a group, along the input channels.
    """

    zeros: int = 2
    group: int = 4

    @property
    def name(self):
        return f"{self.group - self.zeros}:{self.group}"

    @property
    def num_units(self):
        return self.group

    def count_pruned(self, sparsity, final_sparsity=None):
        if final_sparsity is None:
            raise ValueError(
                "An N:M pattern is reached at a schedule's final sparsity. Give your "
                "`PruningSchedule` subclass an attribute `final_sparsity`. "
                "Received: a schedule without it."
            )
        share = 0.0 if not final_sparsity else sparsity / final_sparsity
        if isinstance(share, numbers.Real):
            return min(round(self.zeros * float(share)), self.zeros)
        return ops.minimum(ops.cast(ops.round(self.zeros * share), "int32"), self.zeros)

    def mask(self, weights, num_pruned):
        bits = magnitude_bits(self.view.to_matrices(weights))
        stack, inputs, outputs = self.view.shape(self.shape)
        groups = -(-inputs // self.group)
        padding = groups * self.group - inputs
        if padding:  # pad with values below every magnitude
            bits = ops.pad(bits, ((0, 0), (0, padding), (0, 0)), constant_values=-1)
        bits = ops.reshape(bits, (stack, groups, self.group, outputs))
        places = ops.split(bits, self.group, axis=2)
        masks = []
        for i, own in enumerate(places):
            # The rank of a position: how many in its group are larger, or equal and before it.
            rank = sum(
                ops.cast(ops.greater_equal(other, own) if j < i else other > own, "int8")
                for j, other in enumerate(places)
                if j != i
            )
            masks.append(rank < ops.cast(self.group - num_pruned, "int8"))
        keep = ops.reshape(ops.concatenate(masks, axis=2), (stack, groups * self.group, outputs))
        return self.view.from_matrices(keep[:, :inputs], self.shape)

    def count_zeros(self, num_pruned):
        stack, inputs, outputs = self.view.shape(self.shape)
        whole, tail = divmod(inputs, self.group)
        tail_zeros = max(tail - (self.group - num_pruned), 0)
        return stack * outputs * (whole * num_pruned + tail_zeros)

    def get_config(self):
        return {"sparsity_m_by_n": [self.zeros, self.group]}


def make_pattern(
    shape, view, block_size=(1, 1), block_pooling_type="AVG", sparsity_m_by_n=None, path="weight"
):
    """Makes the pattern that the arguments of `prune_low_magnitude` describe for one weight.

    Raises:
        ValueError: if the block is larger than the weight.
    """
    shape = tuple(int(size) for size in shape)
    if sparsity_m_by_n is not None:
        zeros, group = sparsity_m_by_n
        return NMPattern(shape, view, zeros, group)
    if tuple(block_size) == (1, 1):
        return Pattern(shape, view)
    _, inputs, outputs = view.shape(shape)
    if block_size[0] > inputs or block_size[1] > outputs:
        raise ValueError(
            f"`block_size` must not be larger than the weight it prunes. '{path}' has "
            f"{inputs} input and {outputs} output channels: choose a smaller block, or leave its "
            f"layer out with a `pruning_policy`. Received: block_size={tuple(block_size)}"
        )
    return BlockPattern(shape, view, tuple(block_size), block_pooling_type)
