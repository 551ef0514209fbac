"""Branches of a network: joined, or each by a thread, the outputs are those of Keras."""

import math

import keras
import numpy as np
import pytest
from helpers import assert_same, assert_survives_a_file, examples, numbers, randomize, sparsities
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keras_trim.inference import Engine
from keras_trim.inference.ir.graph import Graph
from keras_trim.inference.ir.operations import Convolution, Pool
from keras_trim.inference.kernels.instructions import INSTRUCTIONS, TASKS
from keras_trim.inference.lowering import branches
from keras_trim.inference.lowering.chains import Link
from keras_trim.inference.lowering.tuner import Tuner


@pytest.fixture
def take(monkeypatch, force_kernels):
    """A function after which all branches that can be computed in a way are."""
    monkeypatch.setattr(branches, "_LEAST_WORK", 0)
    monkeypatch.setattr(branches, "_WORTH", math.inf)
    return lambda way: force_kernels(branches=way)


def count(engine, x, opcode):
    """How many instructions of a kind a run takes, what threads do by themselves not counted."""
    program = engine._runner([x], skip_zeros=True).program
    (step,) = program.steps
    codes = {instruction.name: instruction.code for instruction in INSTRUCTIONS}
    return int(np.sum(program.table[slice(*step), 0] == codes[opcode]))


@st.composite
def forked(draw, max_depth=2):
    """Models whose branches begin with the same tensor, and may have branches themselves."""
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    x = inputs = keras.Input((height, width, draw(st.integers(1, 5))))
    if draw(st.booleans()):  # else branches begin with the image, channels last
        x = layers.Conv2D(draw(st.integers(1, 8)), 1, activation="relu")(x)

    def branch(x, depth):
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(["pointwise", "pointwise", "window", "depthwise", "mean"]))
            activation = draw(st.sampled_from([None, "relu", "relu6"]))
            if kind in ("pointwise", "window"):
                size = 1 if kind == "pointwise" else 3
                filters = draw(st.integers(1, 20))
                x = layers.Conv2D(filters, size, padding="same", activation=activation)(x)
            elif kind == "depthwise":
                x = layers.DepthwiseConv2D(3, padding="same", activation=activation)(x)
            else:
                x = layers.AveragePooling2D(3, strides=1, padding="same")(x)
        if depth < max_depth and draw(st.booleans()):
            x = join([branch(x, depth + 1) for _ in range(2)])
        return x

    def join(tensors):
        how = draw(st.sampled_from(["concatenate", "concatenate", "twice", "sum"]))
        if how == "sum":
            filters = tensors[0].shape[-1]
            same = [layers.Conv2D(filters, 1)(x) if x.shape[-1] != filters else x for x in tensors]
            return layers.Add()(same)
        joined = layers.Concatenate()(tensors)
        # A tensor that begins two others can lie in one of them.
        return layers.Concatenate()([tensors[0], joined]) if how == "twice" else joined

    tensors = [branch(x, 0) for _ in range(draw(st.integers(2, 4)))]
    outputs = [join(tensors)]
    if draw(st.booleans()):
        outputs.append(tensors[-1])
    return keras.Model(inputs, outputs)


@examples
@given(
    forked(), sparsities, st.sampled_from(["intra-op", "inter-op"]), st.integers(1, 3), st.data()
)
def test_any_branches(take, model, sparsity, way, num_threads, data):
    take(way)
    batch = data.draw(st.sampled_from([1, 1, 2]))
    assert_same(
        randomize(model, sparsity), numbers(batch, *model.input_shape[1:]), num_threads=num_threads
    )


def inception_module(filters=(8, 4, 6)):
    """1x1, 1x1 then 3x3, 1x1 then 3x3 twice, and pooling then 1x1."""
    x = inputs = keras.Input((9, 9, 12))
    relu = {"activation": "relu", "padding": "same"}
    a = layers.Conv2D(filters[0], 1, name="a", **relu)(x)
    b = layers.Conv2D(filters[1], 1, name="b", **relu)(x)
    b = layers.Conv2D(5, 3, name="b2", **relu)(b)
    c = layers.Conv2D(filters[2], 1, name="c", **relu)(x)
    c = layers.Conv2D(7, 3, name="c2", **relu)(c)
    c = layers.Conv2D(7, 3, name="c3", **relu)(c)
    d = layers.MaxPooling2D(3, strides=1, padding="same", name="d")(x)
    d = layers.Conv2D(3, 1, name="d2", **relu)(d)
    return keras.Model(inputs, layers.Concatenate()([a, b, c, d]))


def test_pointwise_layers_of_one_tensor_are_one_layer(take):
    take("intra-op")
    x = numbers(1, 9, 9, 12)
    engine = assert_same(randomize(inception_module()), x)
    # a, b and c; b2, c2 and c3; d2. All of them where they are concatenated: nothing is copied.
    assert count(engine, x, "spmm") == 5
    assert count(engine, x, "copy") == 0
    rows = {row.layer.split("/")[-1]: row for row in engine.summary(x).rows}
    assert [rows[name].shape[-1] for name in "abc"] == [8, 4, 6]
    assert rows["b"].multiply_adds == 81 * 12 * 4
    assert "with" in rows["a"].kernel


def test_a_tensor_that_begins_two_others_lies_in_one_of_them(take):
    take("intra-op")
    x = keras.Input((9, 9, 12))
    a, b = layers.Conv2D(4, 1)(x), layers.Conv2D(4, 3)(layers.Conv2D(4, 1)(x))
    largest, mean = (
        kind(3, 1, "same")(x) for kind in (layers.MaxPooling2D, layers.AveragePooling2D)
    )
    outputs = [layers.Concatenate()([a, largest]), layers.Concatenate()([a, mean]), b]
    data = numbers(1, 9, 9, 12)
    engine = assert_same(randomize(keras.Model(x, outputs)), data)
    assert count(engine, data, "spmm") == 2
    assert count(engine, data, "copy") == 1


def test_several_images_are_not_joined(take):
    take("intra-op")
    x = numbers(2, 9, 9, 12)
    engine = assert_same(randomize(inception_module()), x)
    assert count(engine, x, "spmm") == 7


def test_layers_that_differ_are_not_joined():
    x = inputs = keras.Input((9, 9, 12))
    dense = layers.Conv2D(4, 1, name="dense")(x)
    sparse = layers.Conv2D(4, 1, name="sparse")(x)
    clipped = layers.Conv2D(4, 1, activation="relu", name="clipped")(x)
    strided = layers.Conv2D(4, 1, strides=2, name="strided")(x)
    window = layers.Conv2D(4, 3, name="window")(x)
    model = randomize(
        keras.Model(inputs, [dense, sparse, clipped, strided, window]), sparsity=0.0
    )  # fmt: skip
    kernel, bias = model.get_layer("sparse").get_weights()
    kernel[:, :, 2:] = 0
    model.get_layer("sparse").set_weights([kernel, bias])
    x = numbers(1, 9, 9, 12)
    assert count(assert_same(model, x), x, "spmm") == 5


@pytest.mark.parametrize("num_threads", [2, 3])
def test_threads_take_branches(take, num_threads, tmp_path):
    take("inter-op")
    x = numbers(1, 9, 9, 12)
    engine = assert_same(randomize(inception_module()), x, num_threads=num_threads)
    table = engine._runner([x], skip_zeros=True).program.table
    assert table[table[:, 0] == TASKS.code, 1].tolist() == [num_threads]
    assert count(engine, x, "copy") == 0
    rows = engine.summary(x).rows
    assert all(row.seconds > 0 for row in rows if row.operation != "Concatenate")
    assert any("by thread 2" in row.kernel for row in rows)
    assert_survives_a_file(engine, x, tmp_path)


def test_one_thread_has_no_branches_to_share(take):
    take("inter-op")
    x = numbers(1, 9, 9, 12)
    engine = assert_same(randomize(inception_module()), x, num_threads=1)
    assert count(engine, x, "tasks") == 0


def test_both_ways_are_measured(monkeypatch):
    monkeypatch.setattr(branches, "_LEAST_WORK", 0)
    monkeypatch.setattr(branches, "_WORTH", math.inf)
    known, measured = Tuner.known, []

    def note(tuner, workload, candidates):
        if workload[0] == "branches":
            measured.append(candidates)
        return known(tuner, workload, candidates)

    monkeypatch.setattr(Tuner, "known", note)
    model = randomize(inception_module())
    x = numbers(1, 9, 9, 12)
    engine = Engine(model, num_threads=2)
    np.testing.assert_allclose(engine(x), model.predict_on_batch(x), rtol=1e-4, atol=1e-5)
    assert measured == [["intra-op", "inter-op"]]


def pointwise(products):
    """A layer of so many products with weights."""
    return Convolution(np.ones((1, 1, 1, products), np.float32), np.zeros(products, np.float32))


def links_of(*works):
    graph = Graph(inputs=[0], num_values=1)
    for work in works:
        graph.add(pointwise(work), [0], "layer")
    return {number: Link(node, number, (1, 1, 1, 1)) for number, node in enumerate(graph.nodes)}


@pytest.mark.parametrize(
    ("parts", "works", "num_threads", "expected"),
    [
        ([[0], [1]], [100, 100], 2, ([[0], [1]], [])),
        ([[0], [1], [2]], [100, 60, 45], 2, ([[0], [1, 2]], [])),
        ([[0], [1]], [100, 100], 1, ([], [])),
        ([[0], [1]], [100, 10], 2, ([], [])),  # one would wait for the other
        # The last layer of the longer branch is for both: 100 + 1.15 * 60 / 2, not 160.
        ([[0, 1], [2]], [100, 60, 100], 2, ([[0], [2]], [1])),
        ([[0], [1], [2]], [90, 100, 95], 3, ([[1], [2], [0]], [])),
        ([[0], [1]], [0, 0], 2, ([], [])),
    ],
)
def test_what_threads_take(monkeypatch, parts, works, num_threads, expected):
    monkeypatch.setattr(branches, "_LEAST_WORK", 1)
    assert branches._shares(parts, links_of(*works), num_threads) == expected


def test_few_products_are_not_shared_out():
    assert branches._shares([[0], [1]], links_of(100, 100), 2) == ([], [])


def test_forks_hold_what_follows_from_a_value_alone():
    graph = Graph(inputs=[0], num_values=1)
    (a,) = graph.add(pointwise(1), [0], "a")
    (b,) = graph.add(pointwise(1), [a], "b")
    (c,) = graph.add(pointwise(1), [a], "c")
    (d,) = graph.add(pointwise(1), [c], "d")
    (e,) = graph.add(Pool((3, 3), (1, 1), ("same", "same"), True), [c], "e")
    (f,) = graph.add(pointwise(1), [b], "f")
    residual = Convolution(np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32))
    residual.residual = True
    (g,) = graph.add(residual, [d, e], "g")  # in a chain with d, which so takes something else
    graph.outputs = [f, g]
    first, group, last = branches.branch_groups(graph)
    assert first.branches == [[0]]
    assert sorted(group.branches) == [[1, 5], [2, 4]]
    assert group.chains == [[2], [4], [1, 5]]
    assert last.chains == [[3, 6]]
