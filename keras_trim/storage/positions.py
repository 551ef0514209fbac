"""Encodes and decodes the positions of nonzero values: a bitmask or delta-coded positions.

A value is zero if all its bits are zero, so -0.0 is not.
"""

import numpy as np

from keras_trim.storage.errors import FormatError

_FAR = 255  # a byte that stands for 255 zeros and no value


def nonzero_mask(values):
    """Boolean array: which values of an array of rank 1 have any bit set."""
    itemsize = values.itemsize
    if itemsize in (1, 2, 4, 8):
        return values.view(f"u{itemsize}") != 0
    return values.view(np.uint8).reshape(len(values), itemsize).any(axis=1)


def encode_mask(mask):
    """Packs a mask. Value i is bit i % 8 of byte i // 8."""
    return np.packbits(mask, bitorder="little")


def decode_mask(data, size, count):
    """Integer array: the positions of the `count` set bits, ascending, all below `size`."""
    mask = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").view(bool)
    positions = np.flatnonzero(mask)  # indexing by positions is 4x as fast as by a mask
    if len(positions) != count or (count and int(positions[-1]) >= size):
        raise FormatError("A mask has a different number of values than its header says.")
    return positions


def encode_deltas(positions):
    """Encodes each value as one byte, the number of zeros before it.

    A byte of 255 stands for 255 more zeros and no value.
    """
    deltas = np.diff(positions, prepend=-1) - 1
    far, near = np.divmod(deltas, _FAR)
    if not far.any():
        return near.astype(np.uint8)
    data = np.full(len(deltas) + int(far.sum()), _FAR, np.uint8)
    data[np.cumsum(far + 1) - 1] = near
    return data


def decode_deltas(data, size, count):
    """Integer array: the positions of `count` values, ascending, all below `size`."""
    deltas = np.frombuffer(data, np.uint8)
    steps = deltas.astype(np.int64)
    if len(deltas) == count:
        if count and int(deltas.max()) == _FAR:
            raise FormatError("Gaps have a different number of values than their header says.")
        steps += 1
        positions = np.cumsum(steps, out=steps)
        positions -= 1
    else:
        is_value = deltas != _FAR
        steps += is_value
        positions = np.cumsum(steps, out=steps)[is_value] - 1
    if len(positions) != count or (count and int(positions[-1]) >= size):
        raise FormatError("Gaps lead past the end or have a different number of values.")
    return positions
