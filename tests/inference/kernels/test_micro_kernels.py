"""Micro-kernels against NumPy, over shapes."""

import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from keras_trim.alignment import aligned_zeros
from keras_trim.inference.kernels.dwconv.masked import masked_window
from keras_trim.inference.kernels.dwconv.rolling import WINDOWS, rolling_window
from keras_trim.inference.kernels.dwconv.small import small_window
from keras_trim.inference.kernels.lane_masks import masks_of_taps
from keras_trim.inference.kernels.llvm import CLIP, FIRST, LANES, RESIDUAL
from keras_trim.inference.kernels.pooling.reductions import plane_total
from keras_trim.inference.kernels.spmm.micro_kernel import spmm_micro_kernel
from keras_trim.inference.kernels.spmv import sell
from keras_trim.inference.kernels.spmv.csr import DENSE_VECTORS, csr_dots, dense_dots
from keras_trim.inference.kernels.switch import switch

LOW, HIGH = np.float32(-1.5), np.float32(2.0)
SPMM = (
    "x, offsets, values, table, groups, sums, sums_stride, y, stride, bias, residual, flags, low, "
    "high"
)
WINDOW = (
    "planes, x, x_plane, others, row, lines, rows, x_line, column, columns, values, num_values, "
    "bias, y, y_plane, y_line, count, flags, low, high, outside"
)


def callable_of(kernel, parameters):
    """The micro-kernel as a function that Python can call, with arrays in place of addresses."""
    function = switch(parameters, {0: kernel})
    compiled = njit(lambda *arguments: function(0, *arguments))

    def call(*arguments):
        compiled(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))

    return call


def normal(rng, *shape):
    array = aligned_zeros(int(np.prod(shape)) + 4 * LANES)  # vectors are read past the end
    view = array[: int(np.prod(shape))].reshape(shape)
    view[...] = rng.standard_normal(shape)
    return view


def clipped(y, flags):
    return np.clip(y, LOW, HIGH) if flags & CLIP else y


TILES = {
    (rows, vectors): callable_of(spmm_micro_kernel(rows, vectors), SPMM)
    for rows, vectors in [(1, 1), (1, 3), (1, 8), (2, 2), (4, 1), (6, 2)]
}


@pytest.mark.parametrize("tile", TILES)
@examples
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    flags=st.sampled_from([FIRST, FIRST | CLIP, FIRST | RESIDUAL, 0, CLIP, CLIP | RESIDUAL]),
    seed=st.integers(0, 9),
)
def test_spmm(tile, counts, flags, seed):
    rng, (rows, vectors), groups = np.random.default_rng(seed), tile, len(counts)
    columns, width = sum(counts), vectors * LANES
    x = normal(rng, 1000 + width)
    offsets = rng.integers(0, 1000, max(columns, 1)).astype(np.int32)
    values, bias = normal(rng, max(columns, 1), rows), normal(rng, groups * rows)
    table = np.zeros((groups, 3), np.int32)
    table[:, 1] = counts
    sums, residual = (normal(rng, groups * rows, width) for _ in range(2))
    y = normal(rng, groups * rows, width + LANES)
    before = y[:, width:].copy()
    TILES[tile](
        x, offsets, values, table, groups, sums, sums.strides[0], y, y.strides[0], bias,
        np.pad(residual, ((0, 0), (0, LANES))), flags, LOW, HIGH,
    )  # fmt: skip
    expected = np.repeat(bias[:, None], width, 1) if flags & FIRST else sums.copy()
    first = 0
    for group, count in enumerate(counts):
        for k in range(first, first + count):
            seen = x[offsets[k] : offsets[k] + width]
            expected[group * rows :][:rows] += values[k][:, None] * seen
        first += count
    expected = clipped(expected + residual if flags & RESIDUAL else expected, flags)
    np.testing.assert_allclose(y[:, :width], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(y[:, width:], before)


CSR = callable_of(csr_dots(), "x, columns, values, starts, rows, y, bias, flags, low, high")
GEMV = {
    vectors: callable_of(dense_dots(vectors), "x, weights, inputs, y, left, bias, flags, low, high")
    for vectors in DENSE_VECTORS
}
SELL = sell.IS_AVAILABLE and callable_of(
    sell.sell_dots(), "x, columns, lanes, values, starts, groups, y, bias, left, flags, low, high"
)
matrices = {
    "rows": st.integers(1, 40),
    "inputs": st.integers(1, 90),
    "density": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    "flags": st.sampled_from([0, CLIP]),
    "seed": st.integers(0, 9),
}


def matrix_of(rows, inputs, density, seed):
    rng = np.random.default_rng(seed)
    matrix = normal(rng, rows, inputs) * (rng.random((rows, inputs)) < density)
    return matrix.astype(np.float32), normal(rng, inputs), normal(rng, rows)


def assert_product(y, matrix, x, bias, flags):
    rows = len(matrix)
    expected = clipped(matrix @ x + bias, flags)
    np.testing.assert_allclose(y[:rows], expected, rtol=1e-4, atol=1e-4)
    assert not y[rows:].any()  # no more is written


@examples
@given(**matrices)
def test_spmv_csr(rows, inputs, density, flags, seed):
    matrix, x, bias = matrix_of(rows, inputs, density, seed)
    of_row, column = np.nonzero(matrix)
    starts = np.searchsorted(of_row, np.arange(rows + 1)).astype(np.int32)
    columns = np.pad(column, (0, 16)).astype(np.uint16)
    values = np.pad(matrix[of_row, column], (0, 16))
    y = np.zeros(rows + LANES, np.float32)
    CSR(x, columns, values, starts, rows, y, bias, flags, LOW, HIGH)
    assert_product(y, matrix, x, bias, flags)


@pytest.mark.skipif(not sell.IS_AVAILABLE, reason="the processor has no AVX-512")
@examples
@given(**matrices)
def test_spmv_sell(rows, inputs, density, flags, seed):
    matrix, x, bias = matrix_of(rows, inputs, density, seed)
    groups = -(-rows // sell.ROWS)
    of_row, column = np.nonzero(matrix)
    starts = np.searchsorted(of_row, np.arange(groups * sell.ROWS + 1))
    starts, vectors, lanes, values = sell.schedule(
        starts, column, matrix[of_row, column], -(-inputs // LANES)
    )
    vectors, values = (np.concatenate([a, np.zeros_like(a[:2])]) for a in (vectors, values))
    lanes = aligned_like(lanes)
    y = np.zeros(groups * sell.ROWS + LANES, np.float32)
    bias = np.pad(bias, (0, sell.ROWS))
    SELL(x, vectors, lanes, values, starts, groups, y, bias, rows, flags, LOW, HIGH)
    assert_product(y, matrix, x, bias[:rows], flags)


def aligned_like(array):
    aligned = aligned_zeros(array.size // 4 + 64).view(array.dtype)[: array.size]
    aligned[:] = array.reshape(-1)
    return aligned


@pytest.mark.parametrize("vectors", DENSE_VECTORS)
@examples
@given(**matrices)
def test_gemv(vectors, rows, inputs, density, flags, seed):
    matrix, x, bias = matrix_of(rows, inputs, density, seed)
    width = vectors * LANES
    rows = min(rows, width)
    matrix, bias = matrix[:rows], bias[:rows]
    weights = np.zeros((inputs, width), np.float32)
    weights[:, :rows] = matrix.T
    y = np.zeros(width + LANES, np.float32)
    padded = np.pad(bias, (0, width))
    GEMV[vectors](x, weights, inputs, y, rows, padded, flags, LOW, HIGH)
    assert_product(y, matrix, x, bias, flags)


def windows_of(x, kind, size, stride, pad, pad_value, out, weights):
    """What is made of the windows of an image, by NumPy."""
    padded = np.pad(x, ((pad, size * stride), (pad, size * stride)), constant_values=pad_value)
    seen = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    seen = seen[::stride, ::stride][: out[0], : out[1]]
    if kind == "maximum":
        return seen.max(axis=(2, 3))
    return (seen * weights).sum(axis=(2, 3))


ROLLING = {
    window: callable_of(rolling_window(*window), WINDOW)
    for window in [("product", 3, 1), ("product", 3, 2), ("maximum", 3, 2), ("sum", 2, 2)]
}


@pytest.mark.parametrize("window", ROLLING)
@examples
@given(
    height=st.integers(3, 20),
    width=st.integers(3, 40),
    is_same=st.booleans(),
    flags=st.sampled_from([0, CLIP]),
    seed=st.integers(0, 9),
)
def test_rolling_windows(window, height, width, is_same, flags, seed):
    assert window in WINDOWS
    rng, (kind, size, stride) = np.random.default_rng(seed), window
    pad = 1 if is_same and size == 3 else 0
    out = tuple((n + 2 * pad - size) // stride + 1 for n in (height, width))
    pad_value = np.float32(-np.inf if kind == "maximum" else 0)
    around = aligned_zeros(32 + height * width + 16 * LANES)  # what is read next to the image
    x = around[32 : 32 + height * width].reshape(height, width)
    x[...] = rng.standard_normal(x.shape)
    others = aligned_zeros(32 + 2 * width + 16 * LANES)
    others[:] = pad_value
    weights, bias = normal(rng, size, size), normal(rng, 1)
    values = weights
    if kind == "sum":
        values = np.pad(np.full(out, 0.25, np.float32).reshape(-1), (0, 4 * LANES))
    y = np.zeros(out[0] * out[1] + LANES, np.float32)
    ROLLING[window](
        1, x, 0, others[16:], -pad, out[0], height, 4 * width, -pad, width, values, 0, bias, y, 0,
        4 * out[1], out[1], flags, LOW, HIGH, pad_value,
    )  # fmt: skip
    expected = windows_of(x, kind, size, stride, pad, pad_value, out, weights)
    if kind == "product":
        expected = expected + bias
    elif kind == "sum":
        expected = windows_of(x, kind, size, stride, pad, 0, out, np.full((size, size), 0.25))
    expected = clipped(expected, flags)
    np.testing.assert_allclose(y[: out[0] * out[1]].reshape(out), expected, rtol=1e-4, atol=1e-4)
    assert not y[out[0] * out[1] :].any()


MASKED = {
    kind: callable_of(
        masked_window(kind, 1),
        "x, shifts, masks, in_plane, taps, values, y, bias, flags, low, high, outside",
    )
    for kind in ("product", "sum", "maximum")
}


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("size", [2, 3, 5])
def test_masked_windows(kind, size):
    """The first vector of a plane, all of whose windows reach over an edge."""
    rng = np.random.default_rng(size)
    height, width, pad = 4, 5, size // 2
    around = aligned_zeros(64 + height * width + 64)
    x = around[64 : 64 + height * width].reshape(height, width)
    x[...] = rng.standard_normal(x.shape)
    taps = np.indices((size, size)).reshape(2, -1).T - pad
    shifts, masks = masks_of_taps(height, width, taps, height)
    weights, bias = normal(rng, size, size), normal(rng, 1)
    values = weights if kind == "product" else np.full(4 * LANES, 0.5, np.float32)
    pad_value = np.float32(-np.inf if kind == "maximum" else 0)
    y = np.zeros(2 * LANES, np.float32)
    MASKED[kind](
        x, shifts.astype(np.int32), np.ascontiguousarray(masks), masks.shape[1], size * size,
        values, y, bias, CLIP, LOW, HIGH, pad_value,
    )  # fmt: skip
    factors = {"product": weights, "sum": np.full((size, size), 0.5), "maximum": None}[kind]
    expected = windows_of(x, kind, size, 1, pad, pad_value, (height, width), factors)
    expected = clipped(expected + bias if kind == "product" else expected, CLIP).reshape(-1)
    count = min(LANES, height * width)
    np.testing.assert_allclose(y[:count], expected[:count], rtol=1e-4, atol=1e-4)


SMALL = callable_of(
    small_window(), "planes, x, x_plane, pixels, values, bias, y, y_plane, flags, low, high"
)


@pytest.mark.parametrize("flags", [0, CLIP])
@pytest.mark.parametrize("pixels", [1, 2, 4, 9])
def test_small_windows(pixels, flags):
    rng, planes, apart = np.random.default_rng(pixels), 5, 2 * LANES + 1
    x, values = normal(rng, planes, apart), normal(rng, planes, pixels, LANES)
    bias, y = normal(rng, planes), np.zeros((planes, apart), np.float32)
    SMALL(planes, x, 4 * apart, pixels, values, bias, y, 4 * apart, flags, LOW, HIGH)
    expected = np.einsum("pi,pil->pl", x[:, :pixels], values) + bias[:, None]
    np.testing.assert_allclose(y[:, :LANES], clipped(expected, flags), rtol=1e-4, atol=1e-4)
    assert not y[:, LANES:].any()


@pytest.mark.parametrize("kind", ["sum", "maximum"])
def test_plane_totals(kind):
    total = callable_of(plane_total(kind), "x, pixels, y")
    for pixels in (1, LANES - 1, LANES, LANES + 1, 5 * LANES + 3):
        x, y = normal(np.random.default_rng(pixels), pixels + LANES), np.zeros(1, np.float32)
        total(x, pixels, y)
        expected = x[:pixels].sum() if kind == "sum" else x[:pixels].max()
        assert y[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
