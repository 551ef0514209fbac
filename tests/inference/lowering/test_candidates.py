"""Which kernel a layer gets is measured; whichever it is, the outputs are those of Keras."""

import itertools
import math
import os
import subprocess
import sys

import keras
import llvmlite.binding
import numba
import numpy as np
import pytest
from helpers import assert_same, batches, examples, numbers, of_layer, randomize, sparsities
from hypothesis import example, given
from hypothesis import strategies as st

from keras_trim.inference.kernels.dwconv import rolling
from keras_trim.inference.kernels.instructions import FILL
from keras_trim.inference.kernels.layout.copies import copy_floats
from keras_trim.inference.kernels.llvm import LANES
from keras_trim.inference.kernels.spmv import sell as lookup
from keras_trim.inference.lowering import autotuning, kn2row, spmm_candidates
from keras_trim.inference.lowering.autotuning import select
from keras_trim.inference.lowering.packing import SparseColumns, row_groups
from keras_trim.inference.lowering.tuner import Tuner
from keras_trim.inference.program.builder import Builder
from keras_trim.inference.program.tensors import Tensor, plane_size
from keras_trim.inference.runtime.executor import Executor


def taken(tuner, kind):
    """The names of the candidates that a `ForcedTuner` took for workloads of a kind."""
    return [name for known, name in tuner.taken if known == kind]


@examples
@given(
    kernel=st.sampled_from(["dense", "CSR", "SELL"]),
    width=st.integers(1, 70),
    units=st.integers(1, 70),
    batch=st.sampled_from([1, 2, 3]),
    sparsity=sparsities,
    num_threads=st.integers(1, 4),
)
def test_rows(force_kernels, kernel, width, units, batch, sparsity, num_threads):
    force_kernels(spmv=kernel)
    model = of_layer(keras.layers.Dense(units, activation="relu"), (width,), sparsity)
    assert_same(model, numbers(batch, width), num_threads=num_threads)


@pytest.mark.parametrize("name", ["rolling", "masked"])
@examples
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.integers(1, 3),
    padding=st.sampled_from(["valid", "same"]),
    size=st.tuples(st.integers(4, 20), st.integers(4, 40)),
    channels=st.integers(1, 4),
    multiplier=st.integers(1, 2),
    batch=st.sampled_from([1, 3]),
    num_threads=st.integers(1, 4),
)
def test_depthwise(
    force_kernels, name, kernel, strides, padding, size, channels, multiplier, batch, num_threads
):
    tuner = force_kernels(depthwise=name)
    layer = keras.layers.DepthwiseConv2D(
        kernel, strides, padding, depth_multiplier=multiplier, activation="relu6"
    )
    model = of_layer(layer, (*size, channels))
    assert_same(model, numbers(batch, *size, channels), num_threads=num_threads)
    can_roll = len({*kernel}) == 1 and kernel[0] == 3 and strides < 3
    expected = "masked" if name == "masked" else "rolling" if can_roll else "padded"
    assert expected in taken(tuner, "depthwise")


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "fits"),
    [
        ((1, 1), 3, 1, True),
        ((2, 2), 3, 1, True),
        ((2, 2), 3, 2, True),
        ((1, 2), 3, 1, True),
        ((2, 1), 3, 2, True),
        ((2, 3), 5, 1, True),
        ((3, 3), 3, 1, False),  # a corner is out of reach of the opposite one
        ((4, 4), 3, 2, False),
    ],
)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_depthwise_of_small_images(force_kernels, size, kernel, strides, fits, num_threads):
    tuner = force_kernels(depthwise="small")
    layer = keras.layers.DepthwiseConv2D(kernel, strides, "same", activation="relu6")
    model = of_layer(layer, (*size, 150))
    assert_same(model, numbers(3, *size, 150), num_threads=num_threads)
    assert ("small" in taken(tuner, "depthwise")) == fits


@examples
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    strides=st.integers(1, 3),
    multiplier=st.integers(1, 3),
    num_threads=st.integers(1, 3),
)
def test_depthwise_of_any_small_image(
    force_kernels, size, kernel, dilation, strides, multiplier, num_threads
):
    force_kernels(depthwise="small")
    layer = keras.layers.DepthwiseConv2D(
        kernel,
        strides,
        "same",
        depth_multiplier=multiplier,
        dilation_rate=dilation if strides == 1 else 1,
    )
    model = of_layer(layer, (*size, 3))
    assert_same(model, numbers(2, *size, 3), num_threads=num_threads)


@pytest.mark.parametrize("window", rolling.WINDOWS)
@examples
@given(
    padding=st.sampled_from(["valid", "same"]),
    height=st.sampled_from([5, 6, 7, 14, 40, 150, 1000]),
    width=st.integers(5, 40),
    channels=st.integers(1, 40),
    batch=st.sampled_from([1, 3]),
    special=st.sampled_from([None, np.nan, np.inf]),
    num_threads=st.integers(1, 4),
)
def test_windows_by_lines(
    force_kernels, window, padding, height, width, channels, batch, special, num_threads
):  # fmt: skip
    """What is next to an edge, on the line before, is not within a window, even if it is NaN."""
    tuner = force_kernels("rolling")
    kind, size, stride = window
    if kind == "product":
        layer = keras.layers.DepthwiseConv2D(size, stride, padding, bias_initializer="ones")
    else:
        pool = keras.layers.MaxPooling2D if kind == "maximum" else keras.layers.AveragePooling2D
        layer = pool(size, stride, padding)
    shape = height, width if height < 100 else 5 + width % 12, channels
    x = numbers(batch, *shape)
    # Whether a maximum leaves NaN out differs by backend, and on JAX by the shape.
    if special is not None and (kind != "maximum" or special == np.inf):
        x[:, :: size + 2, [0, -1]] = special
    assert_same(of_layer(layer, shape, 0.0), x, num_threads=num_threads)
    assert "rolling" in taken(tuner, "depthwise") + taken(tuner, "pooling")


CONVOLUTIONS = ["padded", "masked", "im2col", "kn2row"]
TILINGS = ["sparse", "dense", "packed", "blocks", "2 blocks, packed"]


@examples
@given(
    convolution=st.sampled_from(CONVOLUTIONS),
    tiling=st.sampled_from(TILINGS),
    kernel=st.integers(1, 3),
    strides=st.integers(1, 2),
    padding=st.sampled_from(["valid", "same"]),
    size=st.tuples(st.integers(3, 20), st.integers(3, 40)),
    filters=st.integers(1, 20),
    batch=batches,
    sparsity=sparsities,
)
def test_convolution(
    force_kernels, convolution, tiling, kernel, strides, padding, size, filters, batch, sparsity
):
    force_kernels(convolution=convolution, spmm=tiling, pointwise="split")
    model = of_layer(
        keras.layers.Conv2D(filters, kernel, strides, padding, activation="relu"),
        (*size, 5),
        sparsity,
    )
    assert_same(model, numbers(batch, *size, 5))


@pytest.mark.parametrize("convolution", ["padded", "masked"])
@examples
@given(
    tiling=st.sampled_from(TILINGS),
    kernel=st.tuples(st.integers(2, 5), st.integers(1, 4)),
    strides=st.integers(1, 2),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    size=st.tuples(st.integers(1, 20), st.sampled_from([14, 15, 16, 29, 32])),
    batch=st.sampled_from([1, 3]),
    sparsity=sparsities.filter(bool),
    has_residual=st.booleans(),
    num_threads=st.integers(1, 3),
)
@example(  # the last column of a window is where the next channel's first one is
    tiling="packed", kernel=(2, 11), strides=1, dilation=8, groups=1, size=(5, 14), batch=1,
    sparsity=0.5, has_residual=False, num_threads=1,
)  # fmt: skip
def test_convolution_with_a_residual(
    force_kernels, convolution, tiling, kernel, strides, dilation, groups, size, batch, sparsity,
    has_residual, num_threads,
):  # fmt: skip
    tuner = force_kernels(convolution=convolution, spmm=tiling)
    x = keras.Input((*(n * strides for n in size), 4))
    y = keras.layers.Conv2D(
        6 * groups, kernel, strides, "same", groups=groups,
        dilation_rate=dilation if strides == 1 else 1,
    )(x)  # fmt: skip
    if has_residual:
        other = keras.layers.Conv2D(6 * groups, 1, strides)(x)
        y = keras.layers.ReLU()(keras.layers.Add()([y, other]))
    model = randomize(keras.Model(x, y), sparsity)
    assert_same(model, numbers(batch, *x.shape[1:]), num_threads=num_threads)
    can_mask = convolution == "masked" and strides == 1
    assert ("masked" in taken(tuner, "convolution")) == can_mask


@examples
@given(
    tiling=st.sampled_from(["", "packed", "blocks", "2 lines"]),
    kernel=st.tuples(st.integers(1, 5), st.integers(2, 7)),
    strides=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["valid", "same"]),
    size=st.tuples(st.integers(1, 40), st.sampled_from([12, 14, 15, 26, 30, 44, 61, 100])),
    filters=st.integers(1, 20),
    batch=st.sampled_from([1, 3]),
    sparsity=sparsities,
    special=st.sampled_from([None, np.nan, np.inf]),
    has_residual=st.booleans(),
    num_threads=st.integers(1, 4),
)
@example(
    tiling="", kernel=(3, 3), strides=1, dilation=1, padding="same", size=(20, 14), filters=5,
    batch=3, sparsity=0.5, special=None, has_residual=True, num_threads=2,
)  # fmt: skip
@example(
    tiling="packed", kernel=(5, 2), strides=1, dilation=1, padding="same", size=(3, 30), filters=4,
    batch=1, sparsity=0.5, special=np.inf, has_residual=False, num_threads=3,
)  # fmt: skip
def test_convolution_whose_sums_move(
    monkeypatch, force_kernels, tiling, kernel, strides, dilation, padding, size, filters, batch,
    sparsity, special, has_residual, num_threads,
):  # fmt: skip
    tuner = force_kernels(convolution="kn2row", kn2row=tiling)
    monkeypatch.setattr(spmm_candidates, "_ALWAYS_DENSE", 2)
    monkeypatch.setattr(kn2row, "_CACHES", (1 << 11, 1 << 16))
    monkeypatch.setattr(kn2row, "_LEAST_WEIGHTS", 0)
    dilation = dilation if strides == 1 else 1
    reach = [(k - 1) * dilation + 1 for k in kernel]
    size = [max(n * strides, r) for n, r in zip(size, reach, strict=True)]
    x = keras.Input((*size, 5))
    y = keras.layers.Conv2D(filters, kernel, strides, padding, dilation_rate=dilation)(x)
    if has_residual:
        y = keras.layers.Add()([y, keras.layers.Conv2D(filters, reach, strides, padding)(x)])
    if special is None:  # what becomes of NaN differs by backend
        y = keras.layers.ReLU(1.0)(y)
    data = numbers(batch, *x.shape[1:])
    if special is not None:
        data[:, :: 1 + size[0] // 2, [0, -1]] = special
    assert_same(randomize(keras.Model(x, y), sparsity), data, num_threads=num_threads)
    width = y.shape[2]
    line = -(-(width + (reach[1] - 1) // strides) // LANES)
    is_full = 0.6 * line * LANES <= width and width > (line - 1) * LANES
    fits = line <= kn2row.MOST_SUMS and reach[1] > strides
    assert bool(taken(tuner, "kn2row")) == (is_full and fits)
    assert strides == 1 or not any("packed" in name for name in taken(tuner, "kn2row"))


@pytest.mark.parametrize("kernel", [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_padding_on_one_side_only(kernel, padding):
    """Below or on the right, where the next row or plane lies in memory, without a gap."""
    model = of_layer(keras.layers.Conv2D(3, kernel, padding=padding), (4, 8, 4), 0.5)
    assert_same(model, numbers(2, 4, 8, 4))


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("left", range(4))
@pytest.mark.parametrize("right", [0, 1])
def test_strides_over_padding(kernel, left, right):
    for width in (8, 9):
        inputs = keras.Input((6, width, 2))
        padded = keras.layers.ZeroPadding2D(((1, 0), (left, right)))(inputs)
        outputs = keras.layers.Conv2D(3, kernel, strides=2)(padded)
        model = randomize(keras.Model(inputs, outputs))
        assert_same(model, numbers(2, 6, width, 2))


@pytest.mark.parametrize("name", ["padded", "im2col"])
@examples
@given(
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    strides=st.integers(1, 2),
    padding=st.sampled_from(["valid", "same"]),
    size=st.tuples(st.integers(6, 20), st.integers(6, 31)),
    channels=st.integers(1, 2),
    batch=batches,
    sparsity=sparsities,
    num_threads=st.integers(1, 4),
)
def test_convolution_of_few_channels(
    force_kernels, name, kernel, strides, padding, size, channels, batch, sparsity, num_threads
):
    tuner = force_kernels(convolution=name)
    layer = keras.layers.Conv2D(40, kernel, strides, padding, activation="relu")
    model = of_layer(layer, (*size, channels), sparsity)
    assert_same(model, numbers(batch, *size, channels), num_threads=num_threads)
    # Lines that are whole vectors, and windows that do not overlap, leave no gaps between lines.
    is_gapped = (kernel[1] - 1) // strides > 0 and model.output_shape[2] % LANES > 0
    assert ("im2col" in taken(tuner, "convolution")) == (name == "im2col" and bool(is_gapped))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("num_threads", [2, 3])
def test_threads_share_out_pixels_of_many_channels(force_kernels, kernel, num_threads):
    line = keras.layers.Conv1D(4, kernel, padding="same", activation="relu")
    line = of_layer(line, (256, 40), 0.6)
    # One vector per piece: none is left to share out.
    image = keras.layers.Conv2D(4, kernel, padding="same", activation="relu")
    image = of_layer(image, (4, 16, 60), 0.6)
    for convolution, tiling in itertools.product(CONVOLUTIONS, TILINGS):
        force_kernels(convolution=convolution, spmm=tiling)
        assert_same(line, numbers(1, 256, 40), num_threads=num_threads)
        assert_same(image, numbers(2, 4, 16, 60), num_threads=num_threads)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_threads_have_room_for_sums_of_one_channel(force_kernels, sparsity):
    """Whose pixels they share out in other pieces than those of several channels."""
    model = of_layer(keras.layers.Conv2D(1, 1), (16, 20, 1700), sparsity)
    for tiling in TILINGS:
        tuner = force_kernels(spmm=tiling)
        assert_same(model, numbers(1, 16, 20, 1700), num_threads=3)
        assert taken(tuner, "spmm")


@pytest.mark.parametrize("name", ["whole", "split"])
@pytest.mark.parametrize("batch", [1, 3, 5])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_convolution_of_one_pixel(force_kernels, name, batch, num_threads):
    tuner = force_kernels(pointwise=name)
    inputs = keras.Input((1, 1, 40))
    x = keras.layers.DepthwiseConv2D(3, padding="same")(inputs)
    x = keras.layers.Conv2D(20, 1, activation="relu")(x)
    model = randomize(keras.Model(inputs, x), 0.8)
    assert_same(model, numbers(batch, 1, 1, 40), num_threads=num_threads)
    assert ("split" in taken(tuner, "pointwise")) == (name == "split" and batch <= 3)


@examples
@given(
    tiling=st.sampled_from(["tiles of 2", "tiles of 4", "sparse", "packed"]),
    rows=st.sampled_from([2, 4]),
    groups=st.integers(1, 2),
    filters=st.integers(1, 9),
    size=st.tuples(st.integers(1, 9), st.integers(1, 20)),
    seed=st.integers(0, 9),
)
def test_convolution_with_zeros_in_blocks(force_kernels, tiling, rows, groups, filters, size, seed):
    tuner = force_kernels(spmm=tiling)
    model = of_layer(keras.layers.Conv2D(filters * rows * groups, 1, groups=groups), (*size, 6))
    kernel = model.layers[1].kernel
    shape = (*kernel.shape[:-1], filters * groups)
    is_kept = np.random.default_rng(seed).random(shape) < 0.2
    values = numbers(*kernel.shape, seed=seed) * np.repeat(is_kept, rows, axis=-1)
    kernel.assign(values)
    assert_same(model, numbers(2, *size, 6))
    assert taken(tuner, "spmm") or size == (1, 1)  # a pixel is a row of its own


def test_blocks_of_rows_are_found():
    kernel = np.kron(np.eye(3), np.ones((1, 4)))  # (inputs, outputs): 4 outputs share an input
    columns = SparseColumns.of_matrix(kernel, 16, skip_zeros=True)
    assert columns.filled(4) == columns.filled(2) == 1
    assert columns.filled(6) == 12 / (6 * 4)
    tiles = {tiling.tile for tiling in spmm_candidates.spmm_candidates(columns, 4)}
    assert tiles >= {1, 2, 4}
    scattered = SparseColumns.of_matrix(np.eye(12), 16, skip_zeros=True)
    assert scattered.filled(4) == 1 / 4
    assert {tiling.tile for tiling in spmm_candidates.spmm_candidates(scattered, 4)} == {1}


def choice(tuner, candidates, emit, x, num_threads, is_repeated=False, most_floats=math.inf):
    """The candidate that is selected for a layer with the input x."""
    builder = Builder(num_threads, tuner, most_floats=most_floats)
    return select(builder, candidates, emit, ("fill",), x, is_repeated)[0]


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("most_bytes", "in_races"), [(1 << 28, [10**6, 10, 10**5]), (0, [10**6, 10, 10, 10**5])]
)
def test_the_fastest_is_kept_and_remembered(most_bytes, in_races, layout, num_threads, monkeypatch):
    monkeypatch.setattr(autotuning, "_MOST_BYTES", most_bytes)
    emitted = []

    def emit(floats, builder):
        emitted.append(floats)
        builder.constant(np.zeros(floats))
        builder.emit(FILL, y=Tensor((floats,), "NHWC"), size=floats, value=0.0)

    tuner, x = Tuner(), Tensor((2, 5, 5, 3), layout)
    for _ in range(2):
        assert choice(tuner, [10**6, 10, 10**5], emit, x, num_threads) == 10
    assert emitted == [*in_races, 10, 10]


def test_what_was_not_measured_for_lack_of_memory_is_not_remembered():
    def emit(floats, builder):
        builder.emit(FILL, y=Tensor((floats,), "NHWC"), size=floats, value=0.0)

    tuner, x = Tuner(), Tensor((2, 5, 5, 3), "NCHW")
    assert choice(tuner, [10**6, 10], emit, x, num_threads=1, most_floats=10**5) == 10**6
    assert choice(tuner, [10**6, 10], emit, x, num_threads=1) == 10


@pytest.fixture
def steps(monkeypatch):
    """The steps of programs that have run, each a range of instructions."""
    run_step, steps = Executor.run_step, []
    monkeypatch.setattr(
        Executor, "run_step", lambda self, step: steps.append(step) or run_step(self, step)
    )
    return steps


def fill_times(x):
    """A function that emits as many instructions as its way says."""

    def emit(way, builder):
        for _ in range(way):
            builder.emit(FILL, y=x, size=x.size, value=0.0)

    return emit


def test_before_each_run_of_a_race_the_input_is_written_and_other_memory_read(steps):
    x = Tensor((1, 5, 5, 3), "NCHW")
    choice(Tuner(), [1, 2], fill_times(x), x, num_threads=2)
    first, *others = steps
    assert first == (0, 1)
    assert set(others[::2]) == {(1, 3)}
    assert set(others[1::2]) == {(3, 4), (4, 6)}


def test_what_runs_many_times_in_a_row_is_measured_with_its_weights_in_caches(steps):
    x, tuner = Tensor((1, 5, 5, 3), "NHWC"), Tuner()
    ways, emit = [1, 1000], fill_times(x)
    assert choice(tuner, ways, emit, x, num_threads=2, is_repeated=True) == 1
    _, *runs = steps
    assert runs[::2] == runs[1::2]  # each twice in a row, and nothing between them
    assert set(runs) == {(3, 4), (4, 1004)}
    choice(tuner, ways, emit, x, num_threads=2)
    assert len(steps) > len(runs) + 1  # which tells nothing of what runs once


@pytest.mark.parametrize(
    ("pixels", "lines"), [(0, 0), (1, 1), (16, 1), (17, 2), (256, 17), (1024, 65), (784, 49)]
)
def test_planes_are_not_a_power_of_two_apart(pixels, lines):
    assert plane_size(pixels) == 16 * lines


@pytest.mark.parametrize(
    ("rows", "tile", "sizes"),
    [(8, 6, [4, 4]), (11, 6, [6, 4, 1]), (12, 4, [4, 4, 4]), (7, 4, [4, 2, 1]), (3, 1, [1, 1, 1])],
)
def test_rows_are_split_into_tiles(rows, tile, sizes):
    groups = row_groups(SparseColumns.of_matrix(np.ones((2, rows)), 16, skip_zeros=True), tile)
    assert groups[:, 1].tolist() == sizes
    assert groups[:, 0].tolist() == np.cumsum([0, *sizes[:-1]]).tolist()


@pytest.mark.skipif(not lookup.IS_AVAILABLE, reason="the processor has no AVX-512")
@given(
    rows=st.integers(1, 4).map(lambda groups: groups * lookup.ROWS),
    columns=st.integers(1, 90),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
@examples
def test_slots_hold_each_weight_once(rows, columns, density, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(1, 2, (rows, columns)) * (rng.random((rows, columns)) < density)
    matrix = matrix.astype("float32")
    of_row, column = np.nonzero(matrix)
    starts, vectors, lanes, values = lookup.schedule(
        np.searchsorted(of_row, np.arange(rows + 1)), column, matrix[of_row, column],
        -(-columns // 16),
    )  # fmt: skip
    rebuilt = np.zeros_like(matrix)
    for group in range(rows // lookup.ROWS):
        for slot in range(starts[group], starts[group + 1]):
            for row in range(lookup.ROWS):
                half, place = divmod(int(lanes[slot, row]), 16)
                at = int(vectors[slot, half]) * 16 + place
                assert at < columns  # what lies behind x may be anything, even NaN
                rebuilt[group * lookup.ROWS + row, at] += values[slot, row]
    np.testing.assert_array_equal(rebuilt, matrix)


@pytest.mark.parametrize(
    ("features", "shape"), [("+sse2,+avx,+fma", "8 16"), ("+avx512f", "16 32")]
)
def test_vectors_are_those_of_the_processor_that_numba_is_told(features, shape):
    code = """if True:
        import sys
        sys.modules["keras"] = None
        from keras_trim.inference.kernels.llvm import LANES, REGISTERS
        print(LANES, REGISTERS)
    """
    environment = {**os.environ, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    here = llvmlite.binding.get_host_cpu_features()
    if all(here.get(feature.lstrip("+")) for feature in features.split(",")):
        assert done.stdout.split() == shape.split()
    else:
        assert "This processor lacks what kernels are compiled for" in done.stderr


def test_part_of_a_vector_is_stored_and_no_more():
    @numba.njit
    def copy(target, source, count):
        copy_floats(target.ctypes.data, source.ctypes.data, count)

    source = np.arange(1, 4 * LANES + 1, dtype=np.float32)
    for count in range(2 * LANES + 2):
        target = np.zeros(3 * LANES + 2, np.float32)
        copy(target, source, count)
        expected = np.where(np.arange(target.size) < count, source[: target.size], 0)
        np.testing.assert_array_equal(target, expected)
