"""One run of an array's values, encoded and decoded: positions and values, streams and a record."""

import dataclasses
import sys

import numpy as np

from keras_trim.storage import positions as pos
from keras_trim.storage import values as val
from keras_trim.storage.dtypes import FLOATS, dtype_name
from keras_trim.storage.errors import FormatError

# Values per chunk: what encoding and decoding need beside the array itself is a few times this.
CHUNK_SIZE = 1 << 18

MAX_PLANES = 16  # bytes of a value that is split into planes

_SMALL = 4096  # values: below, trying every way costs nothing
_STREAM_COST = 4  # bytes that a stream takes in the header
_GAPS_BELOW = 0.4  # density: above, a bitmask is smaller

POSITIONS = ("all", "none", "mask", "gaps")
VALUES = ("bytes", "planes", "split")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What a header says of a chunk.

    Args:
        positions: String. One of `POSITIONS`.
        values: String. One of `VALUES`.
        count: Integer. How many values are stored: all, or those that are not zero.
        gaps: Integer. Bytes of gaps.
        base: Integer. Of `split`.
        escapes: Integer. Of `split`.
        stored: Tuple of integers. Bytes of each stream in the file.
        crc32: Integer. Of these bytes.
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
    """Encodes values the smallest way.

    Args:
        values: Array of rank 1, little-endian and not empty.
        encoder: `StreamEncoder`.

    Returns:
        Tuple of a `Chunk` (its checksum 0) and the list of bytes to store.
    """
    mask = pos.nonzero_mask(values)
    positions = np.flatnonzero(mask)
    count = len(positions)
    if count == 0:
        return Chunk("none", "bytes", 0, 0, 0, 0, (), 0), []
    ways = [("all", 0, [])]
    if count < len(values):
        small = len(values) <= _SMALL
        if not small and count < 0.9 * len(values):
            ways = []
        ways.append(("mask", 0, [encoder.encode(pos.encode_mask(mask))]))
        if small or count < _GAPS_BELOW * len(values):
            gaps = pos.encode_gaps(positions)
            ways.append(("gaps", len(gaps), [encoder.encode(gaps)]))
    candidates = []
    best_positions = min(ways, key=lambda way: _cost(way[2]) if way[0] != "all" else np.inf)
    for way in {way[0]: way for way in ways if way[0] == "all" or way is best_positions}.values():
        kind, num_gaps, streams = way
        kept = values if kind == "all" else values[positions]
        for value_kind, base, escapes, parts in _encode_values(kept, encoder):
            stored = streams + parts
            chunk = Chunk(
                kind, value_kind, len(kept), num_gaps, base, escapes, tuple(map(len, stored)), 0
            )
            candidates.append((_cost(stored), chunk, stored))
    _, chunk, stored = min(candidates, key=lambda candidate: candidate[0])
    return chunk, stored


def _cost(streams):
    return sum(map(len, streams)) + _STREAM_COST * len(streams)


def _encode_values(values, encoder):
    """Yields kind, base, escapes and streams for each way that may be the smallest."""
    name = dtype_name(values.dtype)
    if name in FLOATS:
        base, escapes, parts = val.split_floats(values, name)
        yield "split", base, escapes, [encoder.encode(part) for part in parts]
    elif 1 < values.itemsize <= MAX_PLANES:
        yield "planes", 0, 0, [encoder.encode(part) for part in val.split_planes(values)]
    if len(values) <= _SMALL or not 1 < values.itemsize <= MAX_PLANES:
        yield "bytes", 0, 0, [encoder.encode(values.view(np.uint8))]


def decode_chunk(chunk, streams, out, name):
    """Decodes a chunk into `out`, an array of rank 1 that holds zeros.

    Args:
        chunk: `Chunk`, checked.
        streams: List of decoded streams, of the sizes that `stream_sizes` gives.
        out: Array of rank 1 and of the chunk's size.
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
        where = pos.decode_gaps(streams[0], len(out), chunk.count)
    if chunk.positions != "all":
        streams = streams[1:]
    if chunk.values == "bytes":
        values = np.frombuffer(streams[0], out.dtype)
    elif chunk.values == "planes":
        values = val.join_planes(streams, out.dtype)
    else:
        values = val.join_floats(streams, name, out.dtype, chunk.base)
    if name == "bool" and values.view(np.uint8).max() > 1:
        raise FormatError("A truth value is neither 0 nor 1.")
    if name[0] == "U" and values.view("<u4").max() > sys.maxunicode:
        raise FormatError("A text has characters that there are not.")
    out[where] = values
