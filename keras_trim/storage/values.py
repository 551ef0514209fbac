"""Encodes nonzero values as byte streams that compress well, and decodes them.

There are three encodings, named as in the file format:

- `bytes`: one stream, value after value.
- `planes`: a byte shuffle. One stream per byte of a value, lowest byte first.
- `split`, floats only. The first stream has one byte per value: three bits for the exponent,
  counted down from a base, and the five highest bits of the mantissa. The next streams have the
  rest of the mantissa and the sign. Exponents out of reach are escapes, in the last stream. All
  the compressible information in weights is in that first byte, where a bytewise entropy coder
  gets all of it. Coded alone, an exponent would need less than one bit, which such a coder cannot
  give.
"""

import numpy as np

from keras_trim.storage.dtypes import FLOATS
from keras_trim.storage.errors import FormatError

ESCAPE = 7  # code of an exponent out of reach; codes 0 to 6 mean base - 0 to base - 6
_HEAD_MANTISSA = 5


def _unsigned(itemsize):
    return np.dtype(f"<u{itemsize}")


def value_stream_sizes(kind, dtype, dtype_name, count, escapes):
    """List of integers: the sizes of the streams that hold `count` values."""
    if kind == "bytes":
        return [count * dtype.itemsize]
    if kind == "planes":
        return [count] * dtype.itemsize
    return [count] * (1 + _tail_bytes(dtype_name)) + [escapes * _escape_bytes(dtype_name)]


def _tail_bytes(dtype_name):
    tail_bits = FLOATS[dtype_name].mantissa_bits - _HEAD_MANTISSA + 1
    return -(-tail_bits // 8)


def _escape_bytes(dtype_name):
    return 1 if FLOATS[dtype_name].exponent_bits <= 8 else 2


def shuffle_bytes(values):
    """Shuffles bytes: returns an array for each byte of a value, lowest byte first."""
    table = values.view(np.uint8).reshape(len(values), -1)
    return [np.ascontiguousarray(table[:, plane]) for plane in range(table.shape[1])]


def unshuffle_bytes(planes, dtype):
    """Inverts `shuffle_bytes`."""
    table = np.empty((len(planes[0]), dtype.itemsize), np.uint8)
    for plane, data in enumerate(planes):
        table[:, plane] = np.frombuffer(data, np.uint8)
    return table.reshape(-1).view(dtype)


def split_floats(values, dtype_name):
    """Splits floats into the streams of `split`.

    Args:
        values: Array of rank 1 and of a float dtype, little-endian.
        dtype_name: String. One of `FLOATS`.

    Returns:
        Tuple of the base (an integer), the number of escapes, and the streams as arrays of bytes.
    """
    exponent_bits, mantissa_bits = FLOATS[dtype_name]
    word = _unsigned(values.itemsize)
    bits = values.view(word)
    tail_bits = mantissa_bits - _HEAD_MANTISSA
    head = (bits >> word.type(tail_bits)) & word.type((1 << (exponent_bits + _HEAD_MANTISSA)) - 1)
    head = head.astype(np.uint16)
    base, table = _head_table(head >> _HEAD_MANTISSA, exponent_bits)
    first = table.take(head)
    # The sign goes last: it is noise, like the low bits of the mantissa.
    tail = (bits & word.type((1 << tail_bits) - 1)) << word.type(1)
    tail |= bits >> word.type(8 * values.itemsize - 1)
    planes = shuffle_bytes(tail)[: _tail_bytes(dtype_name)]
    escaped = np.flatnonzero(first >= ESCAPE << _HEAD_MANTISSA)
    escapes = (head[escaped] >> _HEAD_MANTISSA).astype(_unsigned(_escape_bytes(dtype_name)))
    return base, len(escaped), [first, *planes, escapes]


def _head_table(exponents, exponent_bits):
    """Finds the base that keeps most exponents in reach.

    Returns:
        Tuple of the base and a table from (exponent, mantissa) to the first byte.
    """
    counts = np.bincount(exponents, minlength=1 << exponent_bits)
    sums = np.concatenate([[0], np.cumsum(counts)])
    tops = np.arange(1 << exponent_bits)
    base = int(np.argmax(sums[tops + 1] - sums[np.maximum(tops + 1 - ESCAPE, 0)]))
    codes = base - tops
    codes[(codes < 0) | (codes > ESCAPE)] = ESCAPE
    first = (codes[:, np.newaxis] << _HEAD_MANTISSA) | np.arange(1 << _HEAD_MANTISSA)
    return base, first.astype(np.uint8).reshape(-1)


def join_floats(streams, dtype_name, dtype, base):
    """Inverts `split_floats`.

    Raises:
        FormatError: if the streams contradict each other.
    """
    exponent_bits, mantissa_bits = FLOATS[dtype_name]
    word = _unsigned(dtype.itemsize)
    tail_bits = mantissa_bits - _HEAD_MANTISSA
    first = np.frombuffer(streams[0], np.uint8)
    planes = streams[1:-1]
    top = np.frombuffer(planes[-1], np.uint8)
    if top.size and int(top.max()) >> ((tail_bits + 1) - 8 * (len(planes) - 1)):
        raise FormatError("Values have bits set beyond their width.")
    tail = np.empty((len(first), dtype.itemsize), np.uint8)
    tail[:, len(planes) :] = 0
    for plane, data in enumerate(planes):
        tail[:, plane] = np.frombuffer(data, np.uint8)
    tail = tail.reshape(-1).view(word)
    codes = np.arange(256, dtype=word)
    exponents = np.maximum(base - (np.arange(256) >> _HEAD_MANTISSA), 0).astype(word)
    exponents[ESCAPE << _HEAD_MANTISSA :] = 0
    heads = exponents << word.type(mantissa_bits)
    heads |= (codes & word.type(31)) << word.type(tail_bits)
    bits = heads.take(first)
    bits |= tail >> word.type(1)
    tail <<= word.type(8 * dtype.itemsize - 1)
    bits |= tail
    escapes = np.frombuffer(streams[-1], _unsigned(_escape_bytes(dtype_name)))
    escaped = np.flatnonzero(first >= ESCAPE << _HEAD_MANTISSA)
    if len(escaped) != len(escapes) or (escapes.size and int(escapes.max()) >> exponent_bits):
        raise FormatError("The exponents of values contradict each other.")
    bits[escaped] |= escapes.astype(word) << word.type(mantissa_bits)
    return bits.view(dtype)
