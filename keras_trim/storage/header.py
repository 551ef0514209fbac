"""The header of a file: its contents and their place, as JSON that is checked field by field."""

import dataclasses
import json
import math
from pathlib import PurePosixPath

from keras_trim.storage import dtypes
from keras_trim.storage.chunks import MAX_SHUFFLED, POSITIONS, VALUES, Chunk, stream_sizes
from keras_trim.storage.entries import (
    ArrayEntry,
    FileEntry,
    Header,
    name_problem,
    shape_problem,
)
from keras_trim.storage.errors import FormatError
from keras_trim.storage.values import FLOATS

# Limits that a reader enforces.
MAX_HEADER = 1 << 26  # bytes of JSON
MAX_CHUNK = 1 << 22  # values per chunk
MAX_PIECE = 1 << 24  # bytes per piece of a file

_CHUNK_DEFAULTS = {"values": "bytes", "count": 0, "gaps": 0, "base": 0, "escapes": 0, "crc32": 0}


def dump_header(header):
    """Returns the header as bytes of JSON."""
    content = {
        "arrays": [_dump_array(entry) for entry in header.arrays],
        "files": [
            {"name": e.name, "size": e.size, "piece_size": e.piece_size, "pieces": e.pieces}
            for e in header.files
        ],
        "metadata": header.metadata,
    }
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _dump_array(entry):
    content = {"name": entry.name, "dtype": entry.dtype, "shape": entry.shape}
    if entry.axes != tuple(range(len(entry.shape))):
        content["axes"] = entry.axes
    if entry.decoded_dtype != entry.dtype:
        content["decoded_dtype"] = entry.decoded_dtype
    if entry.scales:
        content |= {"scale_axis": entry.scale_axis, "scales": _dump_array(entry.scales)}
    if len(entry.chunks) > 1:
        content["chunk_size"] = entry.chunk_size
    content["chunks"] = [_dump_chunk(chunk) for chunk in entry.chunks]
    return content


def _dump_chunk(chunk):
    content = {"positions": chunk.positions}
    for field, default in _CHUNK_DEFAULTS.items():
        if getattr(chunk, field) != default:
            content[field] = getattr(chunk, field)
    if chunk.stored:
        content["stored"] = chunk.stored
    return content


def parse_header(data):
    """Parses and checks a header.

    Args:
        data: Bytes of JSON.

    Returns:
        `Header`. Everything in it that can be checked without the data is consistent.

    Raises:
        FormatError: if anything is not.
    """
    try:
        content = json.loads(bytes(data).decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"The header is not JSON ({error}).") from error
    _require(isinstance(content, dict), "The header is not an object.")
    _only(content, {"arrays", "files", "metadata"}, "The header")
    arrays = [_parse_array(item) for item in _list(content, "arrays", "The header")]
    files = [_parse_file(item) for item in _list(content, "files", "The header")]
    metadata = content.get("metadata")
    _require(
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()),
        "The metadata are not strings.",
    )
    for kind, entries in (("arrays", arrays), ("files", files)):
        names = [entry.name for entry in entries]
        _require(len(set(names)) == len(names), f"Two {kind} have the same name.")
    folders = {str(parent) for entry in files for parent in PurePosixPath(entry.name).parents}
    _require(
        folders.isdisjoint(entry.name for entry in files), "A file has the name of a folder, too."
    )
    return Header(arrays, files, metadata)


def _parse_array(item, name=None):
    what = f"Array {name!r}" if name else "An array"
    _require(isinstance(item, dict), f"{what} is not described by an object.")
    allowed = {"name", "dtype", "shape", "axes", "decoded_dtype", "chunk_size", "chunks"}
    _only(item, allowed if name else allowed | {"scale_axis", "scales"}, what)
    name = _name(item)
    what = f"Array {name!r}"
    dtype, decoded = (item.get(key, item.get("dtype")) for key in ("dtype", "decoded_dtype"))
    for each in (dtype, decoded):
        known = isinstance(each, str) and dtypes.parse_dtype(each) is not None
        _require(known, f"{what} has an unknown dtype.")
    _require(
        dtype == decoded or (dtype in (*FLOATS, "int8") and decoded in FLOATS),
        f"{what} cannot be stored as {dtype} and read as {decoded}.",
    )
    shape = tuple(_integers(item, "shape", what))
    size = math.prod(shape)
    itemsize = max(dtypes.parse_dtype(each).itemsize for each in (dtype, decoded))
    problem = shape_problem(shape, itemsize)
    _require(problem is None, f"{what} {problem}.")
    axes = tuple(_integers(item, "axes", what)) if "axes" in item else tuple(range(len(shape)))
    _require(sorted(axes) == list(range(len(shape))), f"{what} has axes that are no permutation.")
    chunk_size = _integer(item, "chunk_size", what, min(max(size, 1), MAX_CHUNK))
    _require(1 <= chunk_size <= MAX_CHUNK, f"{what} has chunks of a size that is out of range.")
    records = _list(item, "chunks", what)
    _require(len(records) == -(-size // chunk_size), f"{what} has too few or too many chunks.")
    entry = ArrayEntry(name, dtype, shape, axes, chunk_size, [], decoded)
    for record, length in zip(records, entry.chunk_lengths(), strict=True):
        entry.chunks.append(_parse_chunk(record, length, dtype, what))
    if "scales" not in item:
        _require(dtype != "int8" or decoded == "int8", f"{what} lacks its scales.")
        return entry
    scales = _parse_array(item["scales"], name)
    axis = _integer(item, "scale_axis", what)
    _require(
        decoded in FLOATS
        and axis < len(shape)
        and scales.shape == (shape[axis],)
        and scales.dtype == scales.decoded_dtype
        and scales.dtype in FLOATS,
        f"{what} has scales that do not fit it.",
    )
    return dataclasses.replace(entry, scales=scales, scale_axis=axis)


def _parse_chunk(record, length, dtype, what):
    what = f"A chunk of {what[0].lower()}{what[1:]}"
    _require(isinstance(record, dict), f"{what} is not described by an object.")
    _only(record, {"positions", "stored", *_CHUNK_DEFAULTS}, what)
    positions, values = record.get("positions"), record.get("values", "bytes")
    _require(positions in POSITIONS and values in VALUES, f"{what} is coded in an unknown way.")
    _require(
        values == "bytes"
        or (values == "split" and dtype in FLOATS)
        or (values == "planes" and dtypes.parse_dtype(dtype).itemsize <= MAX_SHUFFLED),
        f"{what} has values that cannot be split so.",
    )
    numbers = {
        key: _integer(record, key, what, default)
        for key, default in _CHUNK_DEFAULTS.items()
        if key != "values"
    }
    stored = tuple(_integers(record, "stored", what)) if "stored" in record else ()
    chunk = Chunk(positions=positions, values=values, stored=stored, **numbers)
    bounds = {
        "all": (length, length, 0),
        "none": (0, 0, 0),
        "mask": (1, length, 0),
        "gaps": (1, length, length),
    }
    low, high, most_gaps = bounds[positions]
    _require(low <= chunk.count <= high, f"{what} has a count that is out of range.")
    _require(chunk.gaps <= most_gaps, f"{what} has more gaps than values.")
    if values == "split":
        _require(chunk.base < 1 << FLOATS[dtype].exponent_bits, f"{what} has a base out of range.")
    _require(chunk.escapes <= chunk.count, f"{what} has more escapes than values.")
    sizes = stream_sizes(chunk, length, dtypes.parse_dtype(dtype), dtype)
    _require(
        len(sizes) == len(stored)
        and all(mine <= size for mine, size in zip(stored, sizes, strict=True)),
        f"{what} has streams of impossible sizes.",
    )
    return chunk


def _parse_file(item):
    _require(isinstance(item, dict), "A file is not described by an object.")
    _only(item, {"name", "size", "piece_size", "pieces"}, "A file")
    name = _name(item, is_path=True)
    what = f"File {name!r}"
    size, piece_size = _integer(item, "size", what), _integer(item, "piece_size", what)
    _require(1 <= piece_size <= MAX_PIECE, f"{what} has pieces of a size that is out of range.")
    records = _list(item, "pieces", what)
    _require(len(records) == -(-size // piece_size), f"{what} has too few or too many pieces.")
    entry = FileEntry(name, size, piece_size, [])
    for record, length in zip(records, entry.piece_lengths(), strict=True):
        _require(isinstance(record, list) and len(record) == 2, f"{what} has a broken piece.")
        pair = _integers({"piece": record}, "piece", what)
        _require(1 <= pair[0] <= length, f"{what} has a piece of impossible size.")
        entry.pieces.append(tuple(pair))
    return entry


def _require(condition, message):
    if not condition:
        raise FormatError(message)


def _refuse_constant(text):
    raise ValueError(f"{text} is not a number")


def _only(item, allowed, what):
    unknown = set(item) - allowed
    _require(not unknown, f"{what} has unknown fields: {', '.join(sorted(unknown))[:200]}.")


def _name(item, is_path=False):
    name = item.get("name")
    problem = name_problem(name, is_path)
    _require(problem is None, f"{'A file' if is_path else 'An array'} {problem}.")
    return name


def _list(item, key, what):
    value = item.get(key)
    _require(isinstance(value, list), f"{what} has no list of {key}.")
    return value


def _integers(item, key, what):
    values = _list(item, key, what)
    _require(
        all(type(value) is int and 0 <= value < 1 << 62 for value in values),
        f"{what} has a number in {key} that is out of range.",
    )
    return values


def _integer(item, key, what, default=None):
    value = item.get(key, default)
    in_range = type(value) is int and 0 <= value < 1 << 62
    _require(in_range, f"{what} has a number in {key} that is out of range.")
    return value
