"""Corrupt files: real `.ktrim` files with random changes, most of them with valid checksums.

A change that a checksum reveals only tests the checksum. So most changes are made as an attacker
would: a stream or a header field is changed, and everything around it is adjusted to fit.
"""

import contextlib
import copy
import io
import json
import zlib

import numpy as np
import zstandard

from keras_trim.storage.frame import MAGIC, PREFIX, TRAILER, VERSION
from keras_trim.storage.reader import Reader
from keras_trim.storage.streams import StreamDecoder
from keras_trim.storage.writer import Writer

NUMBERS = (
    0,
    1,
    2,
    7,
    255,
    256,
    4096,
    1 << 18,
    1 << 22,
    1 << 31,
    1 << 40,
    (1 << 62) - 1,
    1 << 64,
    -1,
)
VALUES = (
    *NUMBERS,
    *(None, True, 1.5, "", "all", "none", "mask", "gaps", "bytes", "planes", "split", "float32"),
    *("int8", "bool", "float64", "S999999", "U1048576", [], {}, [[]], {"a": []}, "../../x", "\0"),
)


def seed_files(rng_seed=0):
    """Returns small files that together use every feature of the format, a list of bytes."""
    rng = np.random.default_rng(rng_seed)

    def weights(shape, sparsity, dtype="float32"):
        array = rng.standard_normal(shape)
        array[np.abs(array) < np.quantile(np.abs(array), sparsity)] = 0
        return array.astype(dtype)

    two_four = weights((64, 40), 0.0)
    two_four.reshape(16, 4, 40)[:, ::2] = 0
    groups = [
        {"dense": weights((40, 30), 0.0), "bias": np.zeros(30, "float32"), "step": np.int64(7)},
        {"gaps": weights((100, 90), 0.9), "mask": weights((90, 90), 0.5, "float16")},
        {
            "nm": two_four,
            "double": weights((40, 20), 0.3, "float64"),
            "flag": np.eye(9, dtype=bool),
        },
        {
            "text": np.array(["ab", "cde"]),
            "int": rng.integers(0, 9, (50, 60)),
            "empty": np.zeros(0),
        },
    ]
    files = []
    for group in groups:
        buffer = io.BytesIO()
        writer = Writer(buffer)
        for name, array in group.items():
            writer.write_array(name, np.asarray(array))
        rounded = rng.integers(-127, 128, (20, 30)).astype("int8")
        writer.write_array("rounded", rounded, "float32", np.ones(30, "float32"), 1)
        writer.write_file("config.json", b'{"a": [1, 2, 3]}' * 40)
        writer.finish({"writer": "test"})
        files.append(buffer.getvalue())
    return files


def read_all(data, max_bytes=1 << 24):
    """Reads and returns everything in a file."""
    with Reader(io.BytesIO(data), max_bytes) as reader:
        arrays = {name: reader.read_array(name) for name in reader.arrays}
        return arrays, {name: reader.read_file(name) for name in reader.files}


class Parts:
    """A file taken apart into body and header, which can be put together with valid checksums."""

    def __init__(self, data):
        offset, stored, size, *_ = TRAILER.unpack(data[-TRAILER.size :])
        self.body = bytearray(data[PREFIX.size : offset])
        header = StreamDecoder().decode(data[offset : offset + stored], size, is_text=True)
        self.header = json.loads(header)

    def join(self, raw_header=None):
        header = json.dumps(self.header).encode() if raw_header is None else raw_header
        stored = zstandard.ZstdCompressor(level=1).compress(header)
        stored = stored if len(stored) < len(header) else header
        prefix = PREFIX.pack(MAGIC, VERSION, 0)
        trailer = TRAILER.pack(
            PREFIX.size + len(self.body),
            *(len(stored), len(header), zlib.crc32(stored), VERSION, 0, MAGIC),
        )
        return prefix + bytes(self.body) + stored + trailer

    def records(self):
        """Yields the offset and length of each checksum's range, and a function to set it."""
        offset = 0
        for array in self.header["arrays"]:
            for record in [*array["chunks"], *array.get("scales", {}).get("chunks", ())]:
                length = sum(record.get("stored", ()))
                yield offset, length, lambda value, r=record: r.__setitem__("crc32", value)
                offset += length
        for file in self.header["files"]:
            for piece in file["pieces"]:
                yield offset, piece[0], lambda value, p=piece: p.__setitem__(1, value)
                offset += piece[0]

    def fix_checksums(self):
        for offset, length, set_checksum in self.records():
            set_checksum(zlib.crc32(self.body[offset : offset + length]))


def mutate(data, choice):
    """Returns a changed file.

    Args:
        data: Bytes of a file.
        choice: `random.Random`, or anything with its methods `randrange` and `choice`.
    """
    return choice.choice(MUTATIONS)(data, choice)


def _flip_bits(data, choice):
    data = bytearray(data)
    for _ in range(choice.choice((1, 1, 2, 8))):
        data[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
    return bytes(data)


def _cut(data, choice):
    return data[: choice.randrange(len(data))]


def _insert_or_drop(data, choice):
    at, length = choice.randrange(len(data)), choice.choice((1, 4, 16, 200))
    if choice.randrange(2):
        return data[:at] + data[at + length :]
    return data[:at] + bytes(choice.randrange(256) for _ in range(length)) + data[at:]


def _change_trailer(data, choice):
    at = len(data) - 1 - choice.randrange(TRAILER.size)
    return data[:at] + bytes([choice.randrange(256)]) + data[at + 1 :]


def _change_streams(data, choice):
    parts = Parts(data)
    for _ in range(choice.choice((1, 1, 3))):
        parts.body[choice.randrange(len(parts.body))] = choice.randrange(256)
    parts.fix_checksums()
    return parts.join()


def _change_field(data, choice):
    parts = Parts(data)
    for _ in range(choice.choice((1, 1, 1, 2, 3))):
        _change_somewhere(parts.header, choice)
    # A header that no longer parses is left as it is. A reader must report it.
    with contextlib.suppress(TypeError, AttributeError, LookupError, OverflowError, ValueError):
        parts.fix_checksums()
    return parts.join()


def _change_somewhere(node, choice):
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return
        key = choice.choice(keys)
        child = node[key]
        if isinstance(child, (dict, list)) and child and choice.randrange(8):
            node = child
            continue
        action = choice.randrange(8)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, list):
            node.append(copy.deepcopy(child))
        elif action == 2 and isinstance(node, dict):
            node[choice.choice(("positions", "values", "scales", "x"))] = copy.deepcopy(child)
        elif action <= 4 and type(child) is int:
            node[key] = child + choice.choice((-1, 1, -8, 8))
        else:
            node[key] = copy.deepcopy(choice.choice(VALUES))
        return


def _change_frame(data, choice):
    """Replaces a stream by another of the same stored size: a bomb, or a stream of another kind."""
    parts = Parts(data)
    offset, length, _ = choice.choice(list(parts.records()))
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(choice.choice((1, 1 << 10, 1 << 21))))
    frame = (bomb + bytes(length))[:length]
    parts.body[offset : offset + length] = frame
    parts.fix_checksums()
    return parts.join()


def _nest(data, choice):
    depth = choice.choice((10, 1000, 100_000))
    text = (
        b"[" * depth + b"]" * depth
        if choice.randrange(2)
        else b'{"a":' * depth + b"1" + b"}" * depth
    )
    return Parts(data).join(raw_header=text)


def _lie_about_shape(data, choice):
    parts = Parts(data)
    array = choice.choice(parts.header["arrays"])
    array["shape"] = [choice.choice(NUMBERS) for _ in range(choice.choice((1, 2, 3, 33)))]
    if choice.randrange(2):
        array["chunk_size"] = choice.choice(NUMBERS)
    if choice.randrange(2):
        array["chunks"] = [{"positions": "none"}] * choice.choice((1, 2, 100))
    return parts.join()


# Grouped by what changes: bytes of the file, which checksums reveal, or contents under valid
# checksums.
MODES = {
    "bytes": (_flip_bits, _cut, _insert_or_drop, _change_trailer),
    "structure": (
        *(_change_streams, _change_streams, _change_field, _change_field, _change_field),
        *(_change_frame, _lie_about_shape),
        _nest,
    ),
}
MUTATIONS = sum(MODES.values(), ())
