"""Computes the expected masks in NumPy, by sorting."""

import numpy as np


def keep_largest(values, num_pruned):
    """Sorts by magnitude. NaN is largest, and of equal magnitudes the lower index is kept."""
    magnitudes = np.abs(values.astype("float64")).ravel()
    is_nan = np.isnan(magnitudes)
    magnitudes[is_nan] = 0.0
    # `lexsort` sorts by the last key first.
    order = np.lexsort((-np.arange(magnitudes.size), magnitudes, is_nan))
    keep = np.ones(magnitudes.size, bool)
    keep[order[:num_pruned]] = False
    return keep.reshape(values.shape)


def block_mask(matrix, block_size, pooling, num_pruned):
    """`matrix`: (stack, inputs, outputs)."""
    height, width = block_size
    stack, inputs, outputs = matrix.shape
    rows, columns = -(-inputs // height), -(-outputs // width)
    pooled = np.zeros((stack, rows, columns))
    pool = {"AVG": np.mean, "MAX": np.max}[pooling]
    for s, i, j in np.ndindex(stack, rows, columns):
        block = matrix[s, i * height : (i + 1) * height, j * width : (j + 1) * width]
        pooled[s, i, j] = pool(np.abs(block.astype("float64")))
    keep = keep_largest(pooled, num_pruned)
    mask = np.zeros(matrix.shape, bool)
    for s, i, j in np.ndindex(matrix.shape):
        mask[s, i, j] = keep[s, i // height, j // width]
    return mask


def nm_mask(matrix, group, num_pruned):
    """`matrix`: (stack, inputs, outputs); groups along the inputs, the last may be short."""
    stack, inputs, outputs = matrix.shape
    mask = np.zeros(matrix.shape, bool)
    for s in range(stack):
        for start in range(0, inputs, group):
            for j in range(outputs):
                members = matrix[s, start : start + group, j]
                pruned = max(len(members) - (group - num_pruned), 0)
                mask[s, start : start + group, j] = keep_largest(members, pruned)
    return mask
