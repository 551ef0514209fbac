"""A reader written only from docs/format.md: what the page says must be enough."""

import hashlib
import json
import math
import re
import struct
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zstandard

import keras_trim

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "format.md").read_text()
DICTIONARY = (ROOT / "keras_trim" / "storage" / "dictionary.txt").read_bytes()
MAGIC = bytes.fromhex("894B5452494D0D0A")
FLOATS = {"float16": (5, 10), "bfloat16": (8, 7), "float32": (8, 23), "float64": (11, 52)}


def read(data):
    """Reads arrays and files by the page. `bfloat16` arrays are returned as their bits."""
    assert data[:8] == MAGIC
    assert struct.unpack("<II", data[8:16]) == (1, 0)
    offset, stored, size, crc, version, zero = struct.unpack("<QIIIII", data[-36:-8])
    assert (data[-8:], version, zero, offset + stored) == (MAGIC, 1, 0, len(data) - 36)
    assert zlib.crc32(data[offset : offset + stored]) == crc
    header = json.loads(stream(data[offset : offset + stored], size, DICTIONARY))
    arrays, at = {}, 16
    for entry in header["arrays"]:
        arrays[entry["name"]], at = read_array(data, at, entry)
    files = {}
    for entry in header["files"]:
        content = b""
        for stored, crc in entry["pieces"]:
            assert zlib.crc32(data[at : at + stored]) == crc
            piece = min(entry["piece_size"], entry["size"] - len(content))
            content += stream(data[at : at + stored], piece, DICTIONARY)
            at += stored
        files[entry["name"]] = content
    assert at == offset
    return arrays, files


def stream(stored, size, dictionary=b""):
    if len(stored) == size:
        return stored
    assert len(stored) < size
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decoded = zstandard.ZstdDecompressor(dict_data=raw).decompress(stored)
    assert len(decoded) == size
    return decoded


def read_array(data, at, entry):
    name, shape = entry["dtype"], entry["shape"]
    bits = {
        "bfloat16": "u2",
        "float8_e4m3fn": "u1",
        "float8_e5m2": "u1",
        "int4": "i1",
        "uint4": "u1",
    }
    dtype = np.dtype(bits.get(name, name)).newbyteorder("<")
    size = math.prod(shape)
    chunk_size = entry.get("chunk_size", max(size, 1))
    flat = np.zeros(size, dtype)
    for index, chunk in enumerate(entry["chunks"]):
        stored = sum(chunk.get("stored", []))
        assert zlib.crc32(data[at : at + stored]) == chunk.get("crc32", 0)
        part = flat[index * chunk_size : (index + 1) * chunk_size]
        read_chunk(data[at : at + stored], chunk, part, name)
        at += stored
    axes = entry.get("axes", list(range(len(shape))))
    values = flat.reshape([shape[axis] for axis in axes])
    array = np.empty(shape, dtype)
    array.transpose(axes)[...] = values
    decoded = entry.get("decoded_dtype", name)
    if decoded != name:
        if name == "bfloat16":
            array = (array.astype("u4") << 16).view("f4")
        wide = np.float64 if decoded == "float64" else np.float32
        array = array.astype(wide)
        if "scales" in entry:
            scales, at = read_array(data, at, {"name": "", **entry["scales"]})
            if entry["scales"]["dtype"] == "bfloat16":
                scales = (scales.astype("u4") << 16).view("f4")
            side = [1] * len(shape)
            side[entry["scale_axis"]] = -1
            array = array * scales.astype(wide).reshape(side)
        array = array.astype(getattr(ml_dtypes, decoded, decoded))
    return array, at


def read_chunk(data, chunk, out, name):
    n, count, itemsize = len(out), chunk.get("count", 0), out.dtype.itemsize
    if chunk["positions"] == "none":
        return
    sizes = {"all": [], "mask": [-(-n // 8)], "gaps": [chunk.get("gaps")]}[chunk["positions"]]
    kind = chunk.get("values", "bytes")
    if kind == "split":
        exponent, mantissa = FLOATS[name]
        tails = -(-(mantissa - 4) // 8)
        escape = 1 if exponent <= 8 else 2
        sizes = [*sizes, *[count] * (1 + tails), chunk.get("escapes", 0) * escape]
    else:
        sizes = sizes + ([count] * itemsize if kind == "planes" else [count * itemsize])
    streams, at = [], 0
    for stored, size in zip(chunk["stored"], sizes, strict=True):
        streams.append(np.frombuffer(stream(data[at : at + stored], size), "u1"))
        at += stored
    where = list(range(n))
    if chunk["positions"] == "mask":
        mask = streams.pop(0)
        where = [i for i in range(n) if mask[i // 8] >> (i % 8) & 1]
    elif chunk["positions"] == "gaps":
        where, position = [], 0
        for gap in streams.pop(0).tolist():
            position += gap
            if gap < 255:
                where.append(position)
                position += 1
    assert len(where) == count
    if kind == "bytes":
        values = streams[0].tobytes()
    elif kind == "planes":
        values = np.stack(streams, axis=1).tobytes()
    else:
        heads, *tails, escapes = streams
        escapes = iter(np.frombuffer(escapes.tobytes(), f"<u{escape}").tolist())
        words = []
        for i, head in enumerate(heads.tolist()):
            code = head >> 5
            e = next(escapes) if code == 7 else chunk.get("base", 0) - code
            t = sum(int(tail[i]) << 8 * k for k, tail in enumerate(tails))
            m = (head & 31) << (mantissa - 5) | t >> 1
            words.append((t & 1) << (exponent + mantissa) | e << mantissa | m)
        values = np.array(words, f"<u{itemsize}").tobytes()
    out[where] = np.frombuffer(values, out.dtype)


def weights(rng, shape, sparsity, dtype="float32"):
    array = rng.standard_normal(shape)
    array[np.abs(array) < np.quantile(np.abs(array), sparsity)] = 0
    return array.astype(getattr(ml_dtypes, dtype, dtype))


def test_arrays(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_trim.storage.writer.CHUNK_SIZE", 5000)
    two_four = weights(rng, (128, 60), 0.0)
    two_four.reshape(32, 4, 60)[:, 1:3] = 0
    arrays = {
        "noise": rng.integers(0, 256, 40_000, "uint8").view("float32"),
        "2:4": two_four,
        "far": np.eye(70),
        "text": np.array(["ab", "cdé"]),
        "bytes": np.array([b"ab", b"c"]),
        "int": rng.integers(-9, 999, (70, 80)),
        "bool": rng.random((50, 60)) > 0.8,
        "scalar": np.float32(-2.5),
        "empty": np.zeros((0, 3)),
        "complex": weights(rng, 9000, 0.5).astype("complex64"),
        "zeros": np.zeros(9000, "int16"),
    }
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        for sparsity in (0.0, 0.5, 0.9, 0.999):
            arrays[f"{dtype} {sparsity}"] = weights(rng, (90, 80), sparsity, dtype)
    keras_trim.save_arrays(arrays, tmp_path / "arrays.ktrim")
    read_arrays, files = read((tmp_path / "arrays.ktrim").read_bytes())
    assert files == {}
    assert list(read_arrays) == list(arrays)
    for name, array in arrays.items():
        assert np.shape(read_arrays[name]) == np.shape(array), name
        assert read_arrays[name].tobytes() == np.asarray(array).tobytes(), name


@pytest.mark.parametrize("kind", [None, "float16", "bfloat16", "int8"])
def test_models(kind, mlp, tmp_path):
    path = tmp_path / "model.ktrim"
    keras_trim.prune(mlp, 0.6)
    keras_trim.save(mlp, path, values=kind)
    arrays, files = read(path.read_bytes())
    expected = keras_trim.load_arrays(path)
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        assert arrays[name].tobytes() == array.tobytes(), name
    assert json.loads(files["config.json"])["class_name"] == "Sequential"


def test_the_page_states_the_constants():
    from keras_trim.storage import frame, header

    assert f"version {frame.VERSION}\n" in PAGE.splitlines(keepends=True)[0]
    magic, trailer = (
        re.search(r"magic `([0-9A-F ]+)`", PAGE),
        re.search(r"\| trailer \| (\d+)", PAGE),
    )
    assert bytes.fromhex(magic[1]) == frame.MAGIC
    assert int(trailer[1]) == frame.TRAILER.size
    assert header.MAX_CHUNK == 1 << 22
    assert header.MAX_PIECE == 1 << 24
    assert header.MAX_HEADER == 64 << 20


def test_the_dictionary_is_the_one_of_this_version():
    """Another dictionary could not read existing files, so it needs a new version of the format."""
    digest = hashlib.sha256(DICTIONARY).hexdigest()
    assert digest == re.search(r"SHA-256\s`([0-9a-f]+)`", PAGE)[1]
    assert digest == "e25c8a67ea040fcf5731044c40e9aa9c57a738dfd952bf3c40ccbf5320746afb"


def test_a_dictionary_that_was_changed(tmp_path, monkeypatch):
    from keras_trim.storage import streams

    (tmp_path / "dictionary.txt").write_bytes(DICTIONARY + b"\n")
    monkeypatch.setattr(streams, "DICTIONARY", tmp_path / "dictionary.txt")
    with pytest.raises(ImportError, match="damaged.*Reinstall it. Received: .*dictionary.txt"):
        streams._dictionary.__wrapped__()
