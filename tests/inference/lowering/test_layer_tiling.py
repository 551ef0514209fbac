"""Chains of layers in bands of the image: whichever bands, the outputs are those of Keras."""

import math

import keras
import numpy as np
import pytest
from helpers import assert_close, assert_same, examples, numbers, randomize, sparsities
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keras_trim.inference import Engine, ForcedTuner
from keras_trim.inference.ir.graph import Graph
from keras_trim.inference.ir.operations import Activation, Convolution, DepthwiseConvolution
from keras_trim.inference.kernels.instructions import INSTRUCTIONS, SPMM, TASKS
from keras_trim.inference.lowering import chains
from keras_trim.inference.lowering import layer_tiling as depth_first


@pytest.fixture
def in_bands(monkeypatch, force_kernels):
    """A function after which all chains that can run in so many bands, or fewer, do."""
    monkeypatch.setattr(depth_first, "_MOST_TWICE", math.inf)

    def choose(count):
        force_kernels(tiling=tuple(map(str, range(count, 0, -1))))

        def band_counts(links, num_threads):
            counts = range(2, count + 1) if len(links) > 1 else []
            return [n for n in counts if depth_first._is_possible(links, n)]

        monkeypatch.setattr(depth_first, "_band_counts", band_counts)

    return choose


def bands_of(engine, x):
    """How many bands each chain that runs in bands has."""
    table = engine._runner([x], skip_zeros=True).program.table
    return table[table[:, 0] == TASKS.code, 1].tolist()


@st.composite
def stacks(draw):
    """Models of some convolutions, and poolings, one behind the other, and sums with those before
    them.
    """
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    x = inputs = keras.Input((height, width, draw(st.integers(1, 5))))
    if draw(st.booleans()):  # else the chain begins with the image, channels last
        x = layers.Conv2D(draw(st.integers(1, 20)), 1, activation="relu")(x)
    for _ in range(draw(st.integers(2, 4))):
        kinds = ["depthwise", "pointwise", "window", "grouped", "maximum", "mean"]
        before, kind = x, draw(st.sampled_from(kinds))
        size = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        strides, dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]))
        padding = draw(st.sampled_from(["same", "valid"]))
        if draw(st.integers(0, 3)) == 0:
            rows = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
            x = layers.ZeroPadding2D((rows, (1, 0)))(x)
        if kind == "pointwise":
            size, dilation = 1, 1
        elif padding == "valid" and min(x.shape[1], x.shape[2]) <= 2 * dilation:
            padding = "same"
        if kind in ("maximum", "mean"):
            pool = layers.MaxPooling2D if kind == "maximum" else layers.AveragePooling2D
            x = pool(size, strides, padding)(x)
            continue
        arguments = {"strides": strides, "padding": padding, "dilation_rate": dilation}
        arguments["activation"] = draw(st.sampled_from(["relu", None]))
        if kind == "depthwise":
            x = layers.DepthwiseConv2D(size, **arguments)(x)
        else:
            groups = 2 if kind == "grouped" and x.shape[-1] % 2 == 0 else 1
            filters = groups * draw(st.integers(1, 10))
            x = layers.Conv2D(filters, size, groups=groups, **arguments)(x)
        if x.shape == before.shape and draw(st.booleans()):
            x = layers.ReLU()(layers.Add()([x, before]))
    return keras.Model(inputs, x)


@examples
@given(
    model=stacks(),
    sparsity=sparsities,
    count=st.sampled_from([2, 3, 7, 35]),
    num_threads=st.integers(1, 4),
)
def test_outputs_are_those_of_keras(in_bands, model, sparsity, count, num_threads):
    in_bands(count)
    x = numbers(1, *model.input_shape[1:])
    randomize(model, sparsity)
    engine = assert_same(model, x, num_threads=num_threads)
    # Threads have memory of their own: what one leaves in it must not matter.
    expected = engine(x)
    assert_close(engine(-2 * x), np.asarray(model.predict_on_batch(-2 * x)), 1e-4)
    np.testing.assert_array_equal(engine(x), expected)


def inverted_residual(height, width, channels=6, stride=1):
    """The block that MobileNetV2 is made of, behind a convolution."""
    inputs = keras.Input((height, width, 3))
    x = before = layers.Conv2D(channels, 1)(inputs)
    x = layers.ReLU(6.0)(layers.Conv2D(24, 1)(x))
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, stride, padding="same")(x))
    x = layers.Conv2D(channels, 1)(x)
    if stride == 1:
        x = layers.Add()([before, x])
    return randomize(keras.Model(inputs, layers.Flatten()(x)), 0.5)


# Rows that are whole vectors, two or sixteen of which are, and an image of a few pixels.
@pytest.mark.parametrize("size", [(32, 32), (28, 24), (13, 5), (3, 3)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_inverted_residuals(in_bands, size, stride, num_threads):
    in_bands(3)
    model, x = inverted_residual(*size, stride=stride), numbers(1, *size, 3)
    engine = assert_same(model, x, num_threads=num_threads)
    assert bands_of(engine, x) == [min(3, -(-size[0] // stride))]


@pytest.mark.parametrize("is_new", [False, True])  # what is added at the end: a new one, or x
@pytest.mark.parametrize("num_threads", [1, 2])
def test_bottlenecks(in_bands, is_new, num_threads):
    """The block that ResNets are made of: narrow within, and its input is added at the end."""
    in_bands(3)
    inputs = keras.Input((32, 16, 3))
    x = layers.Conv2D(12, 1)(inputs)
    other = layers.Conv2D(12, 1)(x) if is_new else x
    y = layers.ReLU()(layers.Conv2D(3, 1)(x))
    y = layers.ReLU()(layers.Conv2D(3, 3, padding="same")(y))
    y = layers.Add()([other, layers.Conv2D(12, 1)(y)])
    model, x = randomize(keras.Model(inputs, layers.Flatten()(y)), 0.5), numbers(1, 32, 16, 3)
    engine = assert_same(model, x, num_threads=num_threads)
    assert bands_of(engine, x) == [3]
    # What is in a cache anyway is worth a band: the sum with the block's input, not with another.
    program = engine._runner([x], skip_zeros=True).program
    alone = program.table[slice(*program.steps[0]), 0] == SPMM.code
    assert np.count_nonzero(alone) == (3 if is_new else 1)


def test_what_is_not_finite_goes_through_bands_as_without_them(in_bands):
    """Not as in Keras: TensorFlow's `relu6` makes numbers of some NaNs."""
    model, x = inverted_residual(24, 24), numbers(1, 24, 24, 3)
    x[0, 5, 7, 1], x[0, 11, 3, 0] = np.nan, np.inf
    expected = Engine(model, num_threads=2)(x)
    in_bands(3)
    assert np.isnan(expected).any()
    assert_close(Engine(model, num_threads=2)(x), expected, 1e-4)


def test_a_batch_is_not_in_bands(in_bands):
    in_bands(3)
    model, x = inverted_residual(24, 24), numbers(2, 24, 24, 3)
    assert bands_of(assert_same(model, x), x) == []


def test_one_thread_takes_what_the_other_leaves(in_bands):
    """Bands are shared out; a helper that sleeps takes none."""
    in_bands(8)
    model, x = inverted_residual(32, 32), numbers(1, 32, 32, 3)
    engine = Engine(model, num_threads=4)
    assert bands_of(engine, x) == [8]
    program = engine._runner([x], skip_zeros=True).program
    for threads in (1, 2):
        fewer = Engine(model, num_threads=threads)
        np.testing.assert_allclose(fewer(x), engine(x), atol=1e-5)
    # The rows of the table for each thread name memory of its own.
    (row,) = program.table[program.table[:, 0] == TASKS.code]
    first, per_thread = row[2:4]
    kinds = [known.code for known in INSTRUCTIONS if known.name.startswith("dwconv")]
    written = [
        {r[4] for r in program.table[first + t * per_thread :][:per_thread] if r[0] in kinds}
        for t in range(4)
    ]
    assert all(written)
    assert not any(a & b for i, a in enumerate(written) for b in written[:i])


def test_the_summary_tells_of_bands_and_their_times(in_bands):
    in_bands(3)
    engine = Engine(inverted_residual(24, 24), num_threads=1)
    rows = engine.summary().rows
    in_chain = [row for row in rows if "bands" in row.kernel]
    assert [row.operation for row in in_chain] == [
        "Convolution", "DepthwiseConvolution", "Convolution",
    ]  # fmt: skip
    assert all(row.seconds > 0 for row in in_chain)
    assert in_chain[0].shape == (1, 24, 24, 24)


def convolution(size, strides=(1, 1), padding="same", **arguments):
    kernel = np.ones((size, size, 4, 4), np.float32)
    return Convolution(kernel, kernel[0, 0, 0], strides, (padding, padding), **arguments)


def depthwise(size, strides=(1, 1), padding="same"):
    kernel = np.ones((size, size, 4, 1), np.float32)
    return DepthwiseConvolution(kernel, np.ones(4, np.float32), strides, (padding, padding))


def link(operation, height=10, width=16):
    graph = Graph()
    graph.add(operation, [graph.new_value()], "layer")
    return chains.Link(graph.nodes[0], 0, (1, height, width, 4))


@pytest.mark.parametrize(
    ("operation", "rows", "reads"),
    [
        (convolution(1), (2, 5), (2, 5, 0, 0)),
        (convolution(3), (0, 5), (0, 6, 1, 0)),  # one row of zeros above
        (convolution(3), (5, 10), (4, 10, 0, 1)),
        (convolution(3), (0, 10), (0, 10, 1, 1)),
        (convolution(3, padding="valid"), (2, 8), (2, 10, 0, 0)),
        (convolution(3, (2, 2)), (0, 3), (0, 7, 0, 0)),  # "same", even: the odd one behind
        (convolution(3, (2, 2)), (3, 5), (6, 10, 0, 1)),
        (depthwise(5, padding=(2, 2)), (0, 4), (0, 6, 2, 0)),
        (convolution(3, padding=(2, 2), dilation=(2, 2)), (4, 7), (2, 9, 0, 0)),
        (convolution(1, (2, 2)), (1, 3), (2, 5, 0, 0)),
    ],
)
def test_rows_that_a_band_reads(operation, rows, reads):
    assert link(operation).reads(*rows) == reads


@pytest.mark.parametrize(
    ("height", "width", "count", "bands"),
    [
        (12, 16, 3, [(0, 4), (4, 8), (8, 12)]),
        (14, 14, 2, [(0, 8), (8, 14)]),  # 8 rows are whole lines
        (13, 5, 2, [(0, 6), (6, 13)]),  # 16 rows would be
        (2, 16, 2, [(0, 1), (1, 2)]),
        (28, 28, 8, [(0, 3), (3, 7), (7, 10), (10, 14), (14, 17), (17, 21), (21, 24), (24, 28)]),
    ],
)
def test_bands_are_even_and_whole_cache_lines_where_they_can_be(height, width, count, bands):
    assert depth_first._bands(link(convolution(1), height, width), count) == bands


def test_chains_end_where_something_else_needs_a_value():
    graph = Graph(inputs=[0], num_values=1)
    (a,) = graph.add(convolution(1), [0], "a")
    (b,) = graph.add(depthwise(3), [a], "b")
    (c,) = graph.add(convolution(3, residual=True), [b, 0], "c")  # of which c is the first use
    (d,) = graph.add(convolution(1), [c], "d")
    (e,) = graph.add(Activation("affine", 1.0, 0.0), [c], "e")
    (f,) = graph.add(convolution(1, residual=True), [e, d], "f")
    graph.outputs = [f]
    assert chains.chains(graph) == [[0, 1, 2], [3], [4], [5]]


def test_chains_run_when_all_that_they_take_is_there():
    graph = Graph(inputs=[0], num_values=1)
    (a,) = graph.add(convolution(1), [0], "a")
    (b,) = graph.add(Activation("affine", 1.0, 0.0), [0], "b")
    (c,) = graph.add(convolution(1, residual=True), [a, b], "c")
    graph.outputs = [c]
    assert chains.chains(graph) == [[1], [0, 2]]


@pytest.mark.parametrize(
    ("size", "outputs", "num_threads", "counts"),
    [
        (112, 96, 1, [10, 19]),  # 9.6 MB of two layers, by 1 MiB and by 512 KiB
        (112, 96, 2, [10, 20]),
        (14, 96, 1, []),  # stays in a cache
        (14, 96, 2, [2]),  # but would go from core to core
        (6, 512, 2, []),  # fewer numbers than weights
    ],
)
def test_what_is_worth_measuring(size, outputs, num_threads, counts):
    random = np.random.default_rng(0)
    wide = (random.random((1, 1, 16, outputs)) < 0.1).astype(np.float32)
    first = Convolution(wide, wide[0, 0, 0], padding=("same", "same"))
    second = DepthwiseConvolution(np.ones((3, 3, outputs, 1), np.float32), wide[0, 0, 0],
                                  padding=("same", "same"))  # fmt: skip
    third = Convolution(np.ones((1, 1, outputs, 64), np.float32), np.zeros(64, np.float32))
    graph = Graph(inputs=[0], num_values=1)
    value = 0
    for operation in (first, second, third):
        (value,) = graph.add(operation, [value], "layer")
    links, shape = [], (1, size, size, 16)
    for node in graph.nodes[: 3 if size == 6 else 2]:
        links.append(chains.Link(node, 0, shape))
        shape = links[-1].out_shape
    assert depth_first._band_counts(links, num_threads) == counts


def test_no_band_sees_nothing_but_padding(in_bands):
    in_bands(8)
    x = inputs = keras.Input((6, 16, 2))
    x = layers.Conv2D(3, 1)(x)
    x = layers.DepthwiseConv2D(2, padding="valid")(layers.ZeroPadding2D(((9, 9), (0, 0)))(x))
    model = randomize(keras.Model(inputs, layers.Conv2D(3, 1)(x)), 0.5)
    x = numbers(1, 6, 16, 2)
    # Of 23 rows; the first of three bands would see none of the image's.
    assert bands_of(assert_same(model, x), x) == [2]


def test_bands_of_so_few_pixels_that_they_are_rows():
    x = keras.Input((9, 1, 3))
    model = keras.Model(x, layers.Conv2D(4, 1)(layers.Conv2D(3, 1)(x)))
    model.set_weights([np.eye(3)[None, None], numbers(3), np.eye(3, 4)[None, None], numbers(4)])
    data = numbers(1, 9, 1, 3)
    engine = Engine(model, 3, tuner=ForcedTuner(tiling="3"))
    assert_close(engine(data), np.asarray(model.predict_on_batch(data)), 1e-5)
    assert bands_of(engine, data) == [3]
