"""Where the values are that are not zero: a packed bitmask or gaps, and back.

A value is zero if all its bits are: -0.0 is not.
"""

import numpy as np

from keras_trim.storage.errors import FormatError

_FAR = 255  # a byte of gaps that stands for 255 zeros and no value


def nonzero_mask(values):
    """Boolean array: which values of an array of rank 1 have a bit set."""
    itemsize = values.itemsize
    if itemsize in (1, 2, 4, 8):
        return values.view(f"u{itemsize}") != 0
    return values.view(np.uint8).reshape(len(values), itemsize).any(axis=1)


def encode_mask(mask):
    """Packs a mask: value i is bit i % 8 of byte i // 8."""
    return np.packbits(mask, bitorder="little")


def decode_mask(data, size, count):
    """Integer array: the positions of `count` values among `size`, ascending."""
    mask = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").view(bool)
    positions = np.flatnonzero(mask)  # indexing by positions is four times as fast as by a mask
    if len(positions) != count or (count and int(positions[-1]) >= size):
        raise FormatError("A mask has another number of values than its header says.")
    return positions


def encode_gaps(positions):
    """Codes each value as a byte, the zeros before it; 255 of them are a byte of their own."""
    gaps = np.diff(positions, prepend=-1) - 1
    far, near = np.divmod(gaps, _FAR)
    if not far.any():
        return near.astype(np.uint8)
    data = np.full(len(gaps) + int(far.sum()), _FAR, np.uint8)
    data[np.cumsum(far + 1) - 1] = near
    return data


def decode_gaps(data, size, count):
    """Integer array: the positions of `count` values among `size`, ascending."""
    gaps = np.frombuffer(data, np.uint8)
    steps = gaps.astype(np.int64)
    if len(gaps) == count:
        if count and int(gaps.max()) == _FAR:
            raise FormatError("Gaps have another number of values than their header says.")
        steps += 1
        positions = np.cumsum(steps, out=steps)
        positions -= 1
    else:
        is_value = gaps != _FAR
        steps += is_value
        positions = np.cumsum(steps, out=steps)[is_value] - 1
    if len(positions) != count or (count and int(positions[-1]) >= size):
        raise FormatError("Gaps lead beyond the end, or to another number of values.")
    return positions
