"""Arrays as files: no array may change."""

import io
import os

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import keras_trim
from keras_trim.storage import chunks
from keras_trim.storage.reader import Reader

NUMBERS = [
    *("bool", "int8", "int32", "uint16", "int64", "uint64", "float16", "float32", "float64"),
    *("complex64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"),
]


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def round_trip(arrays, folder):
    path = folder / "arrays.ktrim"
    keras_trim.save_arrays(arrays, path)
    return keras_trim.load_arrays(path)


def assert_identical(arrays, others):
    assert list(arrays) == list(others)
    for name, array in arrays.items():
        other = others[name]
        assert (array.shape, array.dtype) == (other.shape, other.dtype), name
        assert array.tobytes() == other.tobytes(), name


def random_bits(rng, dtype, shape, density=1.0):
    """Returns all bit patterns, including NaNs and -0.0, and zeros."""
    if dtype.name in ("bool", "int4", "uint4"):
        array = rng.integers(0, 2, shape).astype(dtype)
    else:
        size = int(np.prod(shape)) * dtype.itemsize
        array = rng.integers(0, 256, size, "uint8").view(dtype).reshape(shape)
    array[rng.random(shape) >= density] = 0
    return array


@pytest.mark.parametrize("density", [0.0, 0.03, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("name", NUMBERS)
def test_every_dtype_at_every_density(name, density, rng, tmp_path):
    dtype = dtype_of(name)
    shapes = {"scalar": (), "none": (0, 3), "few": (3,), "some": (7, 31, 5), "many": (5001, 7)}
    arrays = {key: random_bits(rng, dtype, shape, density) for key, shape in shapes.items()}
    assert_identical(arrays, round_trip(arrays, tmp_path))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99])
def test_weights_of_several_chunks(name, sparsity, rng, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_trim.storage.writer.CHUNK_SIZE", 1 << 12)
    weights = rng.standard_normal((300, 100)).astype("float32") * 0.02
    weights[np.abs(weights) <= np.quantile(np.abs(weights), sparsity)] = 0
    arrays = {"w": weights.astype(dtype_of(name))}
    assert_identical(arrays, round_trip(arrays, tmp_path))
    with Reader(tmp_path / "arrays.ktrim") as reader:
        assert len(reader.arrays["w"].chunks) == 8
        assert "split" in {chunk.values for chunk in reader.arrays["w"].chunks} or sparsity == 0.99


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(n) for n in ("bool", "int16", "float16", "float32", "float64")]),
        hnp.array_shapes(max_dims=3, max_side=40, min_side=0),
        elements=st.just(0) | st.integers(0, 1),
        fill=st.just(0),
    )
    | hnp.arrays(
        st.sampled_from([np.dtype("float32"), np.dtype("float64"), np.dtype("complex64")]),
        hnp.array_shapes(max_dims=2, max_side=12),
    )
)
def test_any_array(tmp_path_factory, array):
    arrays = {"a": array}
    assert_identical(arrays, round_trip(arrays, tmp_path_factory.getbasetemp()))


def test_text_and_byte_order_and_views(tmp_path):
    arrays = {
        "text": np.array([["ab", "äöü€𝄞"], ["", "x" * 50]]),
        "bytes": np.array([b"ab", b"\0c", b""]),
        "objects": np.array(["ab", "c"], object),
        "any width": np.array(["ab", "cde"], getattr(np.dtypes, "StringDType", lambda: "U3")()),
        "big endian": np.arange(3000, dtype=">i4"),
        "transposed": np.arange(60.0).reshape(3, 4, 5).T,
        "strided": np.arange(100)[::-3],
        "list": [1, 2, 3],
        "unicode näme/with: strange\nsigns": np.float32(1),
    }
    loaded = round_trip(arrays, tmp_path)
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert loaded["big endian"].dtype == np.int32
    assert loaded["objects"].dtype == np.dtype("U2")
    assert loaded["transposed"].flags.c_contiguous
    loaded["transposed"][0] = 1  # it owns its memory


@pytest.mark.parametrize(("low", "high", "kind"), [(0.3, 0.6, "mask"), (0.9, 0.999, "gaps")])
def test_positions_are_stored_the_smaller_way(low, high, kind, rng, tmp_path):
    for sparsity in np.linspace(low, high, 4):
        weights = rng.standard_normal((300, 300)).astype("float32")
        weights[rng.random((300, 300)) < sparsity] = 0
        round_trip({"w": weights}, tmp_path)
        with Reader(tmp_path / "arrays.ktrim") as reader:
            assert [chunk.positions for chunk in reader.arrays["w"].chunks] == [kind]


def entropy(symbols):
    counts = np.unique(symbols, return_counts=True)[1]
    return -np.sum(counts * np.log2(counts / counts.sum()))


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.95])
def test_size_is_near_the_entropy_of_mask_and_byte_planes(sparsity, rng, tmp_path):
    weights = rng.standard_normal((700, 800)).astype("float32")
    weights[np.abs(weights) < np.quantile(np.abs(weights), sparsity)] = 0
    round_trip({"w": weights}, tmp_path)
    planes = weights[weights != 0].view("uint8").reshape(-1, 4)
    bits = entropy(weights != 0) + sum(entropy(planes[:, i]) for i in range(4))
    assert (tmp_path / "arrays.ktrim").stat().st_size < 1.01 * bits / 8


def test_groups_of_an_nm_pattern_are_used(rng, tmp_path):
    weights = rng.standard_normal((256, 300)).astype("float32")
    groups = weights.reshape(64, 4, 300)
    smallest = np.argsort(np.abs(groups), axis=1)[:, :2]
    np.put_along_axis(groups, smallest, 0, axis=1)
    arrays = {"w": weights, "conv": weights.reshape(4, 64, 300)}
    assert_identical(arrays, round_trip(arrays, tmp_path))
    with Reader(tmp_path / "arrays.ktrim") as reader:
        entry = reader.arrays["w"]
        assert entry.axes == (1, 0)
        assert reader.arrays["conv"].axes == (0, 2, 1)
        # log2(6) bits per group instead of 4.
        assert entry.chunks[0].stored[0] < 1.03 * np.log2(6) / 4 * weights.size / 8


def test_zeros_take_no_room(tmp_path):
    keras_trim.save_arrays({"w": np.zeros((3000, 1000), "float32")}, tmp_path / "w.ktrim")
    assert (tmp_path / "w.ktrim").stat().st_size < 400
    assert not keras_trim.load_arrays(tmp_path / "w.ktrim")["w"].any()


def test_more_than_the_file_can_be_trusted_with(tmp_path):
    keras_trim.save_arrays({"w": np.zeros((400, 1000), "float32")}, tmp_path / "w.ktrim")
    with pytest.raises(keras_trim.FormatError, match="claims to hold 1,600,000 .* `max_bytes`"):
        keras_trim.load_arrays(tmp_path / "w.ktrim", max_bytes=1_599_999)
    assert keras_trim.load_arrays(tmp_path / "w.ktrim", max_bytes=1_600_000)["w"].size == 400_000


@pytest.mark.parametrize("count", [1, 254, 255, 256, 509, 510, 511, 1021])
def test_deltas_of_every_length(count):
    from keras_trim.storage.positions import decode_deltas, encode_deltas

    mask = np.zeros(count + 3, bool)
    mask[[0, count, count + 2]] = True
    data = encode_deltas(np.flatnonzero(mask))
    np.testing.assert_array_equal(decode_deltas(data, len(mask), 3), [0, count, count + 2])


def test_wrong_arguments(tmp_path):
    path = tmp_path / "w.ktrim"
    with pytest.raises(ValueError, match="must end in `.ktrim`.*Received: path=.*w.npz"):
        keras_trim.save_arrays({}, tmp_path / "w.npz")
    with pytest.raises(ValueError, match="must be the path of a file.*Received: path=3"):
        keras_trim.save_arrays({}, 3)
    with pytest.raises(ValueError, match="dict with strings as keys.*Received: "):
        keras_trim.save_arrays({1: np.ones(3)}, path)
    with pytest.raises(ValueError, match="cannot be stored.*Received: o of dtype object"):
        keras_trim.save_arrays({"o": np.array([None])}, path)
    with pytest.raises(ValueError, match="no name of 1 to 4096 characters. Received: 'x"):
        keras_trim.save_arrays({"x" * 4097: np.ones(3)}, path)
    with pytest.raises(ValueError, match=r"no Unicode text. Received: '\\ud800'"):
        keras_trim.save_arrays({"\ud800": np.ones(3)}, path)
    with pytest.raises(ValueError, match="more than 32 axes. Received: 'deep' of shape"):
        keras_trim.save_arrays({"deep": np.ones([1] * 33)}, path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        keras_trim.load_arrays(path)
    for wrong in (3, io.StringIO()):
        with pytest.raises(ValueError, match="a path or a binary file. Received: path="):
            keras_trim.load_arrays(wrong)
    keras_trim.save_arrays({}, path)
    with pytest.raises(ValueError, match="must be an integer. Received: max_bytes='1 GB'"):
        keras_trim.load_arrays(path, max_bytes="1 GB")
    reader, writer = os.pipe()
    os.close(writer)
    with open(reader, "rb") as pipe, pytest.raises(ValueError, match="BytesIO.*Received: path="):
        keras_trim.load_arrays(pipe)


@pytest.mark.parametrize("text", [["ab", "c\0"], [b"ab", b"c\0\0"]])
def test_text_that_numpy_would_cut_off_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match="ends in a zero.*array of uint8.*Received: "):
        keras_trim.save_arrays({"text": np.array(text, object)}, tmp_path / "a.ktrim")
    assert not [*tmp_path.iterdir()]


def test_nothing_at_all(tmp_path):
    assert round_trip({}, tmp_path) == {}


def test_chunk_size_is_what_a_reader_accepts():
    from keras_trim.storage import header

    assert chunks.CHUNK_SIZE <= header.MAX_CHUNK
