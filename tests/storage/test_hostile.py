"""Files that lie: whatever they contain, they raise one exception and nothing else."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zlib

import keras
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_trim
from benchmarks import _mutations
from keras_trim.storage.header import MAX_HEADER
from keras_trim.storage.reader import Reader
from keras_trim.storage.writer import Writer

FILES = _mutations.seed_files()


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(FILES), st.randoms(use_true_random=False))
def test_mutated_files_are_refused_or_read(data, random):
    message = "."
    try:
        _mutations.read_all(_mutations.mutate(data, random))
    except keras_trim.FormatError as error:
        message = str(error)
    assert message.split(" Received: ")[0].endswith(".")  # one plain sentence
    assert "\n" not in message


@pytest.mark.parametrize("data", FILES)
def test_every_prefix_is_refused(data):
    for length in range(len(data)):
        if length % 7 == 0 or length < 64 or len(data) - length < 64:
            with pytest.raises(keras_trim.FormatError):
                _mutations.read_all(data[:length])


def test_every_byte_is_covered_by_a_check():
    """Flips each bit of some bytes. No flip goes unnoticed."""
    data = FILES[1]
    for at in range(0, len(data), 11):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        with pytest.raises(keras_trim.FormatError):
            _mutations.read_all(bytes(changed))


def change(function):
    """Returns a file whose header a function has changed."""
    parts = _mutations.Parts(FILES[0])
    function(parts.header)
    return parts.join()


def first_chunk(**fields):
    def apply(header):
        header["arrays"][0]["chunks"][0].update(fields)

    return apply


def first_array(**fields):
    return lambda header: header["arrays"][0].update(fields)


def empty(name):
    """Returns the record of a file without contents."""
    return {"name": name, "size": 0, "piece_size": 1, "pieces": []}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (first_array(shape=[1 << 40]), "too few or too many chunks"),
        (first_array(shape=[1 << 61, 1 << 61]), "larger than any memory"),
        (first_array(shape=[0, 1 << 61, 1 << 61]), "larger than any memory"),
        (first_array(shape=[-1]), "out of range"),
        (first_array(shape=[1] * 40), "more than 32 axes"),
        (first_array(dtype="object"), "unknown dtype"),
        (first_array(dtype="U99999999"), "unknown dtype"),
        (first_array(decoded_dtype="float64x"), "unknown dtype"),
        (first_array(decoded_dtype="int8"), "cannot be stored as float32 and read as int8"),
        (first_array(axes=[0, 0]), "no permutation"),
        (first_array(chunk_size=1 << 40), "size that is out of range"),
        (first_array(extra=1), "unknown fields: extra"),
        (first_array(name=3), "no name"),
        (first_array(name="step"), "same name"),
        (first_chunk(stored=[1 << 50]), "impossible sizes"),
        (first_chunk(positions="code"), "unknown way"),
        (first_chunk(count=True), "out of range"),
        (first_chunk(count=1 << 30), "count that is out of range"),
        (first_chunk(base=256), "base out of range"),
        (first_chunk(values="planes"), "impossible sizes"),
        (lambda header: header["files"][0].update(name="../x"), "leads elsewhere"),
        (lambda header: header["files"][0].update(name="C:\\x"), "leads elsewhere"),
        (lambda header: header["files"][0].update(size=1 << 40), "too few or too many pieces"),
        (lambda header: header["files"][0].update(name="ä" * 128), "leads elsewhere"),
        (lambda header: header["files"].append(empty("config.json")), "same name"),
        (lambda header: header["files"].append(empty("config.json/a/b")), "name of a folder"),
        (lambda header: header["files"].pop(), "do not add up"),
        (lambda header: header.update(metadata={"a": []}), "not strings"),
        (lambda header: header.pop("arrays"), "no list of arrays"),
    ],
)
def test_lies_in_the_header(function, message):
    with pytest.raises(keras_trim.FormatError, match=message):
        _mutations.read_all(change(function))


@pytest.mark.parametrize(
    "header", [b"[" * 200_000, b'{"a":' * 200_000, b"\xff\xfe", b"NaN", b"9" * 5000, b"{}", b"3"]
)
def test_a_header_that_is_none(header):
    with pytest.raises(keras_trim.FormatError, match="header"):
        _mutations.read_all(_mutations.Parts(FILES[0]).join(raw_header=header))


@pytest.mark.parametrize("name", ["../x", "/x", "a:b", "", "a\n", "x" * 5000])
def test_names_that_a_reader_refuses_are_not_written(name):
    with pytest.raises(ValueError, match="cannot be stored: it has .*name.*Received: "):
        Writer(io.BytesIO()).write_file(name, b"data")


def test_a_name_is_written_once():
    writer = Writer(io.BytesIO())
    writer.write_array("w", np.ones(3))
    with pytest.raises(ValueError, match="same name: rename one. Received: 'w'"):
        writer.write_array("w", np.ones(3))


def test_other_files(tmp_path):
    for name, content in {
        "empty": b"",
        "short": b"\x89KTRIM\r\n",
        "zip": b"PK\3\4" + bytes(200),
        "text": b"hello" * 100,
        "newlines": FILES[0].replace(b"\r\n", b"\n"),
        "appended": FILES[0] + b"\n",
        "newer": FILES[0][:8] + struct.pack("<I", 2) + FILES[0][12:],
    }.items():
        (tmp_path / name).write_bytes(content)
        for read in (keras_trim.load, keras_trim.load_arrays):
            message = "newer keras-trim" if name == "newer" else "file"
            with pytest.raises(keras_trim.FormatError, match=message):
                read(tmp_path / name)


def test_bombs_are_not_decompressed():
    """A few bytes that decompress to a gigabyte, in a stream and in the header."""
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    parts = _mutations.Parts(FILES[0])
    chunk = parts.header["arrays"][0]["chunks"][0]
    length = sum(chunk["stored"])
    parts.body[:length] = bomb
    size = parts.header["arrays"][0]["shape"]
    parts.header["arrays"][0]["shape"] = [len(bomb) // 4 * 2]
    chunk.update(positions="all", values="bytes", stored=[len(bomb)], count=len(bomb) // 4 * 2)
    chunk.pop("base", None), chunk.pop("escapes", None)
    parts.fix_checksums()
    in_stream = parts.join()
    trailer = bytearray(FILES[0])[-40:]
    in_header = FILES[0][:16] + bomb
    in_header += struct.pack(
        "<QIIIII8s", 16, len(bomb), MAX_HEADER, zlib.crc32(bomb), 1, 0, bytes(trailer[-8:])
    )
    assert size != parts.header["arrays"][0]["shape"]
    for data in (in_stream, in_header):
        tracemalloc.start()
        with pytest.raises(keras_trim.FormatError, match="claims 1073741824 bytes"):
            _mutations.read_all(data)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(data) + (1 << 20)
        tracemalloc.stop()


def test_scales_of_an_empty_array_are_limited(tmp_path):
    """A gigabyte of scales, all zero, of an array that has no values to scale."""
    parts = _mutations.Parts(FILES[0])
    (rounded,) = (each for each in parts.header["arrays"] if each["name"] == "rounded")
    zeros = {"dtype": "float32", "name": "rounded", "shape": [1 << 28]}
    zeros |= {"chunk_size": 1 << 22, "chunks": [{"positions": "none"}] * 64}
    rounded |= {"shape": [0, 1 << 28], "chunks": [], "scales": zeros}
    kept = [each for each in parts.header["arrays"] if each is rounded]
    parts.header.update(arrays=kept, files=[])
    parts.body[:] = b""
    with pytest.raises(keras_trim.FormatError, match="claims to hold 1,073,741,824 bytes"):
        keras_trim.load_arrays(io.BytesIO(parts.join()), max_bytes=1 << 28)


def test_a_description_that_would_fill_the_memory():
    buffer = io.BytesIO()
    writer = Writer(buffer)
    writer.write_file("config.json", b"[" + b"{}," * (6 << 20) + b"0]")
    writer.finish({})
    for read, max_bytes in ((buffer.getvalue(), None), (buffer.getvalue(), 1 << 25)):
        assert len(read) < 1 << 12
        with pytest.raises(keras_trim.FormatError, match="description of .*raise `max_bytes`"):
            keras_trim.load(io.BytesIO(read), max_bytes=max_bytes)


def test_memory_is_that_of_the_arrays(tmp_path):
    weights = np.random.default_rng(0).standard_normal((2000, 1500)).astype("float32")
    weights[np.abs(weights) < 1.3] = 0
    keras_trim.save_arrays({"w": weights}, tmp_path / "w.ktrim")
    keras_trim.load_arrays(tmp_path / "w.ktrim")
    tracemalloc.start()
    keras_trim.load_arrays(tmp_path / "w.ktrim")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * weights.nbytes


@pytest.fixture
def model_file(tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.Dense(4)])
    keras_trim.save(model, tmp_path / "model.ktrim")
    return tmp_path / "model.ktrim"


def with_config(path, function):
    """Replaces the configuration of a model's file."""
    with Reader(path) as reader:
        config = json.loads(reader.read_file("config.json"))
    parts = _mutations.Parts(path.read_bytes())
    function(config)
    (file,) = parts.header["files"]
    text = json.dumps(config).encode()
    del parts.body[len(parts.body) - file["pieces"][0][0] :]
    parts.body += text
    file.update(size=len(text), pieces=[[len(text), 0]])
    parts.fix_checksums()
    path.write_bytes(parts.join())


def layer_config(config, index=1):
    return config["config"]["layers"][index]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        # 2 TB of weights that are not in the file.
        (
            lambda c: layer_config(c, 2)["config"].update(units=1 << 36),
            "weights for a model that takes",
        ),
        (lambda c: layer_config(c, 2)["config"].update(units=17), "do not match"),
        (lambda c: c["config"]["layers"].pop(), "do not match: the model has no layers/dense_1"),
        (lambda c: c["config"].update(layers=3), "cannot be built"),
        (lambda c: c.update(module="os", class_name="system"), "cannot be built"),
        (lambda c: c.update(module="builtins", class_name="eval", config="1"), "cannot be built"),
        (lambda c: layer_config(c).update(class_name="Nothing"), "cannot be built"),
        (
            lambda c: c.update(class_name="Dense", config={"units": 3}, module="keras.layers"),
            "built",
        ),
        (lambda c: c.clear(), "cannot be built"),
        # This would take minutes.
        (lambda c: c["config"].update(layers=[layer_config(c)] * 999), "999 layers, too many for"),
        (lambda c: c.update(class_name="X", config={"layers": [{}] * 9999}), "9,999 layers"),
    ],
)
def test_lies_in_the_model(model_file, function, message):
    with_config(model_file, function)
    with pytest.raises(keras_trim.FormatError, match=message):
        keras_trim.load(model_file)
    # Nothing is left for Keras to do later.
    keras.Sequential([keras.Input((2,)), layers.Dense(1)]).predict(np.zeros((1, 2)), verbose=0)


def test_a_configuration_that_is_no_object(tmp_path):
    with open(tmp_path / "model.ktrim", "wb") as file:
        writer = Writer(file)
        writer.write_file("config.json", b"[1]")
        writer.finish({})
    with pytest.raises(keras_trim.FormatError, match="its configuration is no object"):
        keras_trim.load(tmp_path / "model.ktrim")


def test_a_write_that_fails_leaves_the_file_as_it_was(model_file, monkeypatch):
    before = model_file.read_bytes()
    with pytest.raises(ValueError, match="cannot be stored"):
        keras_trim.save_arrays({"w": np.zeros(3), "o": np.array([None])}, model_file)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        keras_trim.save_arrays({"w": np.zeros(3)}, model_file)
    assert model_file.read_bytes() == before
    assert [*model_file.parent.iterdir()] == [model_file]


@pytest.mark.usefixtures("one_backend")
@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_process_that_is_killed_leaves_the_file_as_it_was(model_file):
    before = model_file.read_bytes()
    code = """
    import sys
    import numpy as np
    from keras_trim.storage import save_arrays
    from keras_trim.storage.writer import Writer

    write_array = Writer.write_array

    def write(self, name, values):
        write_array(self, name, values)
        self._file.flush()
        print(name, flush=True)

    Writer.write_array = write
    noise = np.random.default_rng(0).random(1 << 20)
    save_arrays({str(i): noise for i in range(1000)}, sys.argv[1])
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(model_file)], stdout=subprocess.PIPE
    ) as process:
        for expected in (b"0\n", b"1\n"):
            assert process.stdout.readline() == expected
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert model_file.read_bytes() == before
    keras_trim.load(model_file)
    (rest,) = model_file.parent.glob(".keras-trim-*.tmp/model.ktrim")
    assert rest.stat().st_size > 1 << 23  # it was killed in the middle
    with pytest.raises(keras_trim.FormatError):
        keras_trim.load_arrays(rest)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions and links of POSIX")
def test_links_and_permissions_stay(model_file):
    model_file.chmod(0o640)
    link = model_file.with_name("link.ktrim")
    link.symlink_to(model_file.name)
    keras_trim.save_arrays({"w": np.ones(2)}, link)
    assert link.is_symlink()
    assert model_file.stat().st_mode & 0o777 == 0o640
    assert list(keras_trim.load_arrays(model_file)) == ["w"]
    missing = model_file.parent / "missing" / "w.ktrim"
    with pytest.raises(FileNotFoundError, match=f"No such file.*Received: path={missing}"):
        keras_trim.save_arrays({}, missing)
    pipe = model_file.parent / "pipe.ktrim"
    os.mkfifo(pipe)  # stands for a device: never write to a real one, which root may replace
    with pytest.raises(OSError, match="it is no regular file.*Received: path=.*pipe.ktrim"):
        keras_trim.save_arrays({}, pipe)
    assert pipe.is_fifo()
    folder = model_file.parent / "folder.ktrim"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="Received: path=.*folder.ktrim"):
        keras_trim.save_arrays({}, folder)


def test_a_reader_takes_an_open_file():
    with Reader(io.BytesIO(FILES[0])) as reader:
        assert reader.read_array("step") == 7
