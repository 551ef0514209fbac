"""Pooling, padding, cropping, upsampling, and layers and operations that move values."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_same,
    assert_survives_a_file,
    batches,
    examples,
    kinds,
    numbers,
    of_layer,
    randomize,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from keras import layers, ops

from keras_trim.inference.kernels.instructions import COPY, INSTRUCTIONS

POOLS = {
    1: (layers.MaxPooling1D, layers.AveragePooling1D),
    2: (layers.MaxPooling2D, layers.AveragePooling2D),
}


@given(
    st.sampled_from([1, 2]), st.booleans(), st.integers(1, 4), st.integers(1, 3),
    st.sampled_from(["valid", "same"]), st.sampled_from([None, 0.3]), st.data(), batches,
)  # fmt: skip
@examples
def test_pooling(rank, is_mean, window, stride, padding, clip, data, batch):
    size = [data.draw(st.integers(window, 20)) for _ in range(rank)]
    x = keras.Input((*size, data.draw(st.integers(1, 5))))
    y = POOLS[rank][is_mean](window, strides=stride, padding=padding)(x)
    if clip is not None:
        y = layers.ReLU(clip)(y)
    engine = assert_same(keras.Model(x, y), numbers(batch, *x.shape[1:]))
    assert "Activation" not in kinds(engine)


@pytest.mark.parametrize("size", [(6, 6), (6, 7), (7, 7), (1, 8)])
@pytest.mark.parametrize("format", ["channels_last", "channels_first"])
def test_means_of_windows_over_uneven_padding(size, format):
    """Which Keras fills with pixels on PyTorch, and does not count elsewhere."""
    if keras.backend.backend() == "tensorflow" and format == "channels_first":
        pytest.skip("TensorFlow has no such pooling on a CPU")
    shape = (*size, 2) if format == "channels_last" else (2, *size)
    for window, stride in ((3, 2), (2, 1), (4, 3)):
        layer = layers.AveragePooling2D(window, stride, "same", data_format=format)
        assert_same(of_layer(layer, shape), numbers(2, *shape))
    assert_same(of_layer(layers.AveragePooling1D(4, 3, "same"), (8, 2)), numbers(2, 8, 2))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("format", ["channels_last", "channels_first"])
def test_global_pooling(keepdims, format):
    for rank, names in ((1, ("1D",)), (2, ("2D",))):
        for kind in ("Average", "Max"):
            cls = getattr(layers, f"Global{kind}Pooling{names[0]}")
            layer = cls(data_format=format, keepdims=keepdims)
            shape = (7, 5, 3)[-rank - 1 :]
            assert_same(of_layer(layer, shape), numbers(3, *shape))


amounts = st.tuples(st.integers(0, 3), st.integers(0, 3))


@given(amounts, amounts, batches, st.sampled_from(["channels_last", "channels_first"]))
@examples
def test_padding_and_cropping(rows, columns, batch, format):
    x = keras.Input((7, 9, 8))
    padded = layers.ZeroPadding2D((rows, columns), data_format=format)(x)
    cropped = layers.Cropping2D((columns, rows), data_format=format)(x)
    pooled = layers.MaxPooling2D(2)(layers.ZeroPadding2D((rows, columns))(x))
    assert_same(keras.Model(x, [padded, cropped, pooled]), numbers(batch, 7, 9, 8))


@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_joined_is_made_in_its_place(batch):
    """Parts of parts, one that is joined twice, and parts that are needed alone as well."""
    x = keras.Input((9, 7, 4))
    a, b = layers.Conv2D(5, 3, padding="same")(x), layers.MaxPooling2D(3, 1, padding="same")(x)
    c = layers.DepthwiseConv2D(3, padding="same")(b)
    inner = layers.Concatenate()([a, b])
    outer = layers.Concatenate()([c, inner, a])
    y = layers.Add()([layers.Conv2D(4, 3, padding="same")(outer), layers.ReLU()(c)])
    model = randomize(keras.Model(x, [y, inner, layers.Flatten()(a)]), 0.5)
    engine = assert_same(model, numbers(batch, 9, 7, 4), num_threads=2)
    program = engine._runner([numbers(batch, 9, 7, 4)], skip_zeros=True).program
    copies = np.count_nonzero(program.table[:, 0] == COPY.code)
    assert copies == (1 if batch == 1 else 5)


@pytest.mark.parametrize(
    "layer", [layers.ZeroPadding1D((1, 2)), layers.Cropping1D((2, 1)), layers.UpSampling1D(3)]
)
def test_lines(layer):
    assert_same(of_layer(layer, (6, 5)), numbers(2, 6, 5))


@pytest.mark.parametrize("format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [(1, 2), (3, 2), (2, 9)])
def test_upsampling(size, format):
    layer = layers.UpSampling2D(size, data_format=format)
    assert_same(of_layer(layer, (3, 17, 4)), numbers(2, 3, 17, 4))


sizes = st.tuples(st.integers(1, 20), st.integers(1, 40))


@given(
    sizes, st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(1, 5), batches,
    st.integers(1, 4), st.booleans(),
)  # fmt: skip
@examples
def test_bilinear_upsampling(size, factors, channels, batch, num_threads, in_planes):
    x = keras.Input((*size, channels))
    y = layers.MaxPooling2D(1)(x) if in_planes else x
    model = keras.Model(x, layers.UpSampling2D(factors, interpolation="bilinear")(y))
    assert_same(model, numbers(batch, *size, channels), num_threads=num_threads)


def may_tie(size, target):
    """Whether the middle of a pixel of the target may fall between two pixels."""
    axes = zip(size, target, strict=True)
    return any((2 * i + 1) * n % (2 * m) == 0 for n, m in axes for i in range(m))


@given(
    sizes, sizes, st.sampled_from(["bilinear", "nearest"]), batches, st.integers(1, 4),
    st.booleans(),
)  # fmt: skip
@examples
def test_resizing(size, target, interpolation, batch, num_threads, is_operation):
    is_exact = all(n % m == 0 for n, m in zip(size, target, strict=True))
    assume(interpolation == "bilinear" or is_exact or not may_tie(size, target))
    x = keras.Input((*size, 3))
    if is_operation:
        y = ops.image.resize(x, target, interpolation=interpolation, data_format="channels_last")
    else:
        y = layers.Resizing(*target, interpolation=interpolation)(x)
    assert_same(keras.Model(x, y), numbers(batch, *size, 3), num_threads=num_threads)


def test_resizing_images_of_free_size(tmp_path):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("Keras on TensorFlow upsamples images of known sizes only")
    x = keras.Input((None, None, 3))
    y = layers.UpSampling2D((3, 2), interpolation="bilinear")(layers.Conv2D(5, 3)(x))
    y = layers.UpSampling2D(2, "channels_first", "bilinear")(y)
    y = layers.Resizing(9, 5, "nearest")(layers.Resizing(5, 7)(y))
    model = randomize(keras.Model(x, y))
    engine = assert_same(model, numbers(2, 9, 12, 3))
    assert_same(model, numbers(3, 4, 5, 3))
    data = numbers(1, 6, 5, 3)
    assert_survives_a_file(engine, data, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_nearest_pixel_may_be_infinite(value):
    data = numbers(1, 5, 5, 2)
    data[0, 1, 2] = value
    assert_same(of_layer(layers.Resizing(7, 9, "nearest"), (5, 5, 2)), data)


@pytest.mark.parametrize(
    "layer",
    [
        layers.UpSampling2D(2, interpolation="bicubic"),
        layers.Resizing(3, 4, antialias=True),
        layers.Resizing(3, 4, crop_to_aspect_ratio=True),
        layers.Resizing(3, 4, pad_to_aspect_ratio=True),
        layers.Resizing(5, 5, "nearest"),
    ],
)
def test_resizing_the_engine_leaves_to_keras(layer):
    assert_same(of_layer(layer, (5, 6, 2)), numbers(2, 5, 6, 2), native=False)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Flatten(), (3, 4, 5)),
        (layers.Flatten(data_format="channels_first"), (3, 4, 5)),
        (layers.Flatten(), ()),
        (layers.Reshape((5, -1)), (3, 4, 5)),
        (layers.Reshape((12, 5)), (3, 4, 5)),
        (layers.Reshape((2, 6, 5)), (3, 4, 5)),
        (layers.Permute((3, 1, 2)), (3, 4, 5)),
        (layers.Permute((2, 1)), (18, 20)),
        (layers.RepeatVector(3), (5,)),
    ],
)
def test_reshaping(layer, shape):
    assert_same(of_layer(layer, shape), numbers(3, *shape))
    if len(shape) == 3:  # in the layout that a kernel leaves it in
        x = keras.Input(shape)
        model = keras.Model(x, layer(layers.MaxPooling2D(1)(x)))
        assert_same(model, numbers(3, *shape))


OPERATIONS = {
    "last pixel": lambda x: x[:, -1],
    "ellipsis": lambda x: x[..., 1],
    "steps": lambda x: x[:, ::2, 1:-1, ::-1],
    "new axis": lambda x: x[:, None, :, 2],
    "slices of channels": lambda x: x[..., :2] * x[..., 2:4],
    "reshape": lambda x: ops.reshape(x, (-1, 20, 5)),
    "reshape with a free axis": lambda x: ops.reshape(x, (-1, 4, 25)),
    "transpose": lambda x: ops.transpose(x, (0, 3, 1, 2)),
    "swap": lambda x: ops.swapaxes(x, 1, 3),
    "move": lambda x: ops.moveaxis(x, 1, -1),
    "expand": lambda x: ops.expand_dims(x, 2)[:, :, 0],
    "squeeze": lambda x: ops.squeeze(x[:, 1:2], 1),
    "concatenate": lambda x: ops.concatenate([x, -x], -1),
    "stack": lambda x: ops.stack([x, x * 2], 1)[:, 1],
    "split": lambda x: ops.split(x, 2, axis=1),
    "split at": lambda x: ops.split(x, [1, 4], axis=-1),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=2.0),
    "repeat": lambda x: ops.repeat(x, 3, axis=2),
    "tile": lambda x: ops.tile(x, (2, 1, 3)),
    "roll": lambda x: ops.roll(ops.roll(x, 2, axis=1), -6, axis=-1),
    "tile one": lambda x: ops.tile(x[:, :, :1], (1, 1, 7, 1)),
    "roll around": lambda x: ops.roll(x, 5, axis=2) + x,
    "flip": lambda x: ops.flip(ops.flip(x, axis=(1, -1)), axis=2),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name):
    if keras.backend.backend() == "torch" and name == "steps":
        pytest.skip("PyTorch has no negative steps")
    x = keras.Input((4, 5, 5))
    for y in (x, layers.MaxPooling2D(1)(x)):
        assert_same(keras.Model(x, OPERATIONS[name](y)), numbers(3, 4, 5, 5))


@pytest.mark.parametrize("name", ["tile", "roll", "flip", "reshape"])
def test_operation_on_the_batch_the_engine_leaves_to_keras(name):
    x = keras.Input((4, 5))
    y = {
        "tile": lambda: ops.tile(x, (2, 1, 1)),
        "roll": lambda: ops.roll(x, 1, axis=0),
        "flip": lambda: ops.flip(x, axis=0),
        "reshape": lambda: ops.reshape(x, (-1, 5)),
    }[name]()
    assert_same(keras.Model(x, y), numbers(3, 4, 5), native=False)


def test_channels_first_runs_without_moving_axes():
    def block(x, filters):
        y = layers.Conv2D(filters, 3, padding="same", data_format="channels_first")(x)
        y = layers.BatchNormalization(axis=1)(y)
        return layers.ReLU()(y)

    # Keras does not compute it on every backend's CPU; the same weights channels last do.
    x = keras.Input((3, 12, 10))
    y = block(x, 8)
    y = layers.Add()([block(y, 8), y]) * 2.0
    y = layers.Concatenate(axis=1)([y, ops.sigmoid(y)])
    y = block(layers.MaxPooling2D(2, data_format="channels_first")(y), 4)
    first = keras.Model(x, layers.GlobalAveragePooling2D(data_format="channels_first")(y))
    from keras_trim.inference.frontend.importer import import_model
    from keras_trim.inference.ir.rewrites import rewrite

    names = [type(node.operation).__name__ for node in rewrite(import_model(first)).nodes]
    assert names.count("Permute") == 1  # of the input
    if keras.backend.backend() != "tensorflow":
        engine = assert_same(randomize(first), numbers(2, 3, 12, 10))
        assert kinds(engine).count("Permute") == 1


def test_axes_are_moved_where_it_matters():
    x = keras.Input((4, 5, 6))
    y = ops.transpose(x, (0, 3, 1, 2))
    z = layers.Dense(3)(y)  # over another axis than x's last
    w = y * np.arange(4, dtype="float32").reshape(4, 1) + y[:, :1]
    v = ops.transpose(layers.Concatenate(axis=2)([y, ops.tanh(y)]), (0, 2, 3, 1))
    assert_same(randomize(keras.Model(x, [y, z, w, v])), numbers(3, 4, 5, 6))


def codes(engine, x):
    """The names of the instructions for such an input, without taking it."""
    program = engine._runner([x], skip_zeros=True).program
    (step,) = program.steps
    return [INSTRUCTIONS[code].name for code in program.table[slice(*step), 0]]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_pixel_behind_global_pooling_is_not_moved(batch, num_threads):
    inputs = keras.Input((5, 4, 12))
    x = layers.GlobalAveragePooling2D(keepdims=True)(inputs)
    x = layers.Conv2D(9, 1)(layers.Conv2D(9, 1, activation="relu")(x))
    x = layers.Reshape((3, 3))(x)
    model = randomize(keras.Model(inputs, [x, layers.Flatten()(x)]), 0.5)
    data = numbers(batch, 5, 4, 12)
    engine = assert_same(model, data, num_threads=num_threads)
    first, second, *products = codes(engine, data)
    assert (first, second) == ("transpose", "global_pool")
    assert len(products) == 2
    assert all(name in ("spmv_csr", "spmv_sell", "gemv") for name in products)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_reshaped_tensor_is_the_same_memory(batch):
    inputs = keras.Input((4, 6, 8))
    x = layers.Conv2D(5, 3, padding="same")(inputs)
    line = layers.Reshape((24, 5))(x)
    outputs = [
        layers.Concatenate()([x, layers.Conv2D(3, 1)(inputs)]),  # x is made where this is
        layers.Conv1D(4, 3)(line),
        line,
        layers.Reshape((2, 60))(line),
        layers.Reshape((192,))(inputs),
        layers.Activation("sigmoid")(line),
        x,
    ]
    data = numbers(batch, 4, 6, 8)
    engine = assert_same(randomize(keras.Model(inputs, outputs), 0.5), data, num_threads=2)
    assert "move" not in codes(engine, data)


def test_a_reshaped_tensor_reaches_a_layer_in_keras():
    class Doubled(layers.Layer):
        def call(self, x):
            return 2 * x

    inputs = keras.Input((6, 4))
    x = layers.Reshape((4, 6))(layers.Dense(4)(inputs))
    x = layers.Reshape((24,))(Doubled()(x))
    assert_same(randomize(keras.Model(inputs, layers.Dense(3)(x)), 0.3), numbers(5, 6, 4))


@pytest.mark.parametrize("width", [3, 16])
def test_concatenations_that_share_their_inputs(width):
    """Two concatenations cannot both extend, or both hold, the same memory."""
    x, z = keras.Input((4, width, 8)), keras.Input((4, width, 8))
    join = layers.Concatenate()
    pair, twice = join([z, x]), join([x, x, x])
    outputs = [layers.ReLU()(twice), layers.Permute((2, 1, 3))(twice), join([pair, z, pair, x])]
    assert_same(keras.Model([x, z], outputs), [numbers(1, 4, width, 8, seed=i) for i in (1, 2)])


def test_a_concatenation_of_one_tensor_within_another():
    x = keras.Input((1, 16, 4))
    alone = layers.Lambda(lambda x: ops.concatenate([x], axis=-1))(x)
    outputs = [layers.Concatenate()([x, alone, alone, alone]), layers.ReLU()(alone)]
    assert_same(keras.Model(x, outputs), numbers(1, 1, 16, 4))
