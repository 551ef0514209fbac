"""Encodes and decodes one chunk of an array: positions and values as streams, plus a record."""

import dataclasses
import sys

import numpy as np

from keras_trim.storage import positions as pos
from keras_trim.storage import values as val
from keras_trim.storage.dtypes import FLOATS, dtype_name
from keras_trim.storage.errors import FormatError

# Values per chunk. Encoding and decoding need a few times this much memory beside the array.
CHUNK_SIZE = 1 << 18

MAX_SHUFFLED = 16  # largest value, in bytes, whose bytes are shuffled

_SMALL = 4096  # values: below this, trying every encoding costs nothing
_STREAM_COST = 4  # bytes that a stream takes in the header
_DELTAS_BELOW = 0.4  # density: above this, a bitmask is smaller

POSITIONS = ("all", "none", "mask", "gaps")
VALUES = ("bytes", "planes", "split")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A chunk's record in the header.

    Args:
        positions: String. One of `POSITIONS`.
        values: String. One of `VALUES`.
        count: Integer. The number of stored values: all of them, or only the nonzero ones.
        gaps: Integer. Bytes of delta-coded positions, for `"gaps"`.
        base: Integer. The largest exponent in reach, for `"split"`.
        escapes: Integer. The number of exponents out of reach, for `"split"`.
        stored: Tuple of integers. Bytes of each stream in the file.
        crc32: Integer. Checksum of those bytes.
    """

    positions: str
    values: str
    count: int
    gaps: int
    base: int
    escapes: int
    stored: tuple
    crc32: int


def stream_sizes(chunk, size, dtype, name):
    """List of integers: the decoded sizes of a chunk's streams.

    Args:
        chunk: `Chunk`.
        size: Integer. Values in the chunk.
        dtype: `numpy.dtype`.
        name: String. The name of `dtype`.
    """
    if chunk.positions == "none":
        return []
    sizes = {"all": [], "mask": [-(-size // 8)], "gaps": [chunk.gaps]}[chunk.positions]
    return sizes + val.value_stream_sizes(chunk.values, dtype, name, chunk.count, chunk.escapes)


def encode_chunk(values, encoder):
    """Encodes values with whichever encoding is smallest.

    Args:
        values: Array of rank 1, little-endian and not empty.
        encoder: `StreamEncoder`.

    Returns:
        Tuple of a `Chunk` (with checksum 0) and the list of streams to store, as bytes.
    """
    mask = pos.nonzero_mask(values)
    positions = np.flatnonzero(mask)
    count = len(positions)
    if count == 0:
        return Chunk("none", "bytes", 0, 0, 0, 0, (), 0), []
    encodings = [("all", 0, [])]
    if count < len(values):
        small = len(values) <= _SMALL
        if not small and count < 0.9 * len(values):
            encodings = []
        encodings.append(("mask", 0, [encoder.encode(pos.encode_mask(mask))]))
        if small or count < _DELTAS_BELOW * len(values):
            deltas = pos.encode_deltas(positions)
            encodings.append(("gaps", len(deltas), [encoder.encode(deltas)]))
    candidates = []
    best_positions = min(encodings, key=lambda each: _cost(each[2]) if each[0] != "all" else np.inf)
    for encoding in encodings:
        if encoding[0] != "all" and encoding is not best_positions:
            continue
        kind, num_deltas, streams = encoding
        kept = values if kind == "all" else values[positions]
        for value_kind, base, escapes, parts in _encode_values(kept, encoder):
            stored = streams + parts
            chunk = Chunk(
                kind, value_kind, len(kept), num_deltas, base, escapes, tuple(map(len, stored)), 0
            )
            candidates.append((_cost(stored), chunk, stored))
    _, chunk, stored = min(candidates, key=lambda candidate: candidate[0])
    return chunk, stored


def _cost(streams):
    return sum(map(len, streams)) + _STREAM_COST * len(streams)


def _encode_values(values, encoder):
    """Yields kind, base, escapes and streams of each encoding that might be the smallest."""
    name = dtype_name(values.dtype)
    if name in FLOATS:
        base, escapes, parts = val.split_floats(values, name)
        yield "split", base, escapes, [encoder.encode(part) for part in parts]
    elif 1 < values.itemsize <= MAX_SHUFFLED:
        yield "planes", 0, 0, [encoder.encode(part) for part in val.shuffle_bytes(values)]
    if len(values) <= _SMALL or not 1 < values.itemsize <= MAX_SHUFFLED:
        yield "bytes", 0, 0, [encoder.encode(values.view(np.uint8))]


def decode_chunk(chunk, streams, out, name):
    """Decodes a chunk into `out`, an array of rank 1 that holds zeros.

    Args:
        chunk: `Chunk`, already checked.
        streams: List of decoded streams, of the sizes that `stream_sizes` gives.
        out: Array of rank 1, as long as the chunk.
        name: String. The name of the dtype of `out`.

    Raises:
        FormatError: if the streams contradict the record.
    """
    if chunk.positions == "none":
        return
    where = slice(None)
    if chunk.positions == "mask":
        where = pos.decode_mask(streams[0], len(out), chunk.count)
    elif chunk.positions == "gaps":
        where = pos.decode_deltas(streams[0], len(out), chunk.count)
    if chunk.positions != "all":
        streams = streams[1:]
    if chunk.values == "bytes":
        values = np.frombuffer(streams[0], out.dtype)
    elif chunk.values == "planes":
        values = val.unshuffle_bytes(streams, out.dtype)
    else:
        values = val.join_floats(streams, name, out.dtype, chunk.base)
    if name == "bool" and values.view(np.uint8).max() > 1:
        raise FormatError("A boolean is neither 0 nor 1.")
    if name[0] == "U" and values.view("<u4").max() > sys.maxunicode:
        raise FormatError("A string contains characters that do not exist.")
    out[where] = values
