"""Constants of a program, concatenated into one array per dtype."""

import hashlib

import numpy as np

from keras_trim.alignment import aligned_zeros
from keras_trim.inference.program.tensors import round_up


class ConstantPool:
    """Concatenates arrays into one."""

    def __init__(self, dtype):
        self.parts, self.size, self.dtype = [], 0, dtype
        self.places = {}  # digest of an array -> its offset

    def add(self, array, once=False):
        """Adds an array; returns its offset in elements, aligned to a cache line.

        Args:
            array: Array.
            once: Boolean. Whether to deduplicate against equal arrays added with `once`.
        """
        array = fitting(array, self.dtype).reshape(-1)
        digest = hashlib.blake2b(array, digest_size=16).digest() if once else None
        if digest in self.places:
            return self.places[digest]
        start = self.size
        self.parts.append((start, array))
        self.size += round_up(
            array.size + 1, 64 // array.itemsize
        )  # kernels may read one element past the end
        if once:
            self.places[digest] = start
        return start

    @property
    def nbytes(self):
        return self.size * np.dtype(self.dtype).itemsize

    def join(self):
        joined = aligned_zeros(max(self.size, 1), self.dtype)
        for start, array in self.parts:
            joined[start : start + array.size] = array
        return joined


def fitting(array, dtype):
    """The array, contiguous and converted to a dtype.

    Raises:
        ValueError: if the dtype is an integer and a number is out of its range.
    """
    array = np.asarray(array)
    if np.dtype(dtype).kind in "iu" and array.dtype != dtype and array.size:
        info = np.iinfo(dtype)
        if array.min() < info.min or array.max() > info.max:
            raise ValueError("an operation of a size that cannot be computed")
    return np.ascontiguousarray(array, dtype)
