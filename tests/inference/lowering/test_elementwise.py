"""Activations, normalization, and arithmetic of tensors."""

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
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from keras_trim.inference import Engine

ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu",
    "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "tanh", "tanh_shrink",
]  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    x = np.concatenate([numbers(40, 5) * scale for scale in (1e-4, 1.0, 10.0)]).astype("float32")
    model = of_layer(layers.Activation(name), (5,))
    assert_same(model, x)
    if keras.backend.backend() == "tensorflow" and name in ("elu", "mish", "selu"):
        return  # it computes exp(x) - 1 and loses the digits of small outputs
    # Small outputs, beside which an error would hide behind a large one.
    for part in (-np.abs(x[40:80]), x[:40], -10 - np.abs(x[80:])):
        assert_same(model, part.astype("float32"), tolerance=2e-4)


@pytest.mark.parametrize("name", ["glu", "sparsemax", "sparse_plus", "squareplus", "threshold"])
def test_activation_the_engine_leaves_to_keras(name):
    function = getattr(keras.activations, name)
    if name == "threshold":
        function = lambda x: keras.activations.threshold(x, 0.1, -1.0)  # noqa: E731
    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(4, activation=function)(x))
    assert_same(randomize(model), numbers(5, 6), native=False)


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(),
        layers.ReLU(max_value=0.7),
        layers.ReLU(negative_slope=0.1),
        layers.ReLU(threshold=0.3),
        layers.ReLU(threshold=0.3, negative_slope=0.2),
        layers.LeakyReLU(0.05),
        layers.ELU(0.3),
        layers.Softmax(),
        layers.Softmax(axis=1),
        layers.Softmax(axis=2),
        layers.Activation(layers.LeakyReLU(0.4)),
    ],
    ids=str,
)
def test_activation_layer(layer):
    assert_same(of_layer(layer, (3, 4, 5)), numbers(2, 3, 4, 5))


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(threshold=0.5),
        layers.ReLU(threshold=0.5, negative_slope=0.1),
        layers.Activation("hard_shrink"),
        layers.Activation("soft_shrink"),
        layers.Lambda(lambda x: ops.hard_shrink(x, 0.3) + ops.soft_shrink(x, 0.3)),
    ],
    ids=str,
)
def test_what_is_no_number_is_above_no_threshold(layer):
    assert_same(of_layer(layer, (6,)), np.float32([[np.nan, -np.inf, np.inf, -1, 0.2, 1]]))


@pytest.mark.parametrize("size", [1e3, 1e5, 1e6])
def test_log_softmax_of_large_logits(size):
    """The differences between the logits matter, not their size."""
    inputs = keras.Input((3,))
    engine = Engine(keras.Model(inputs, layers.Activation("log_softmax")(inputs)), 1)
    logits = np.float32([[0, 1, 3]])
    for sign in (1, -1):
        np.testing.assert_allclose(
            engine(logits + np.float32(sign * size)),
            logits - np.log(np.exp(logits).sum()),
            rtol=1e-6,
        )


@pytest.mark.parametrize("size", [7, 32, 33, 512])
def test_average_of_many_equal_pixels(size):
    """In float32, sums of equal numbers would all be rounded the same way."""
    inputs = keras.Input((None, None, 2))
    engine = Engine(keras.Model(inputs, layers.GlobalAveragePooling2D()(inputs)), 1)
    image = np.full((1, size, size, 2), [0.1, 0.3], "float32")
    np.testing.assert_allclose(engine(image), image[:, 0, 0], rtol=2e-6)


def test_activation_layer_the_engine_leaves_to_keras():
    layer = layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.1)
    assert_same(of_layer(layer, (7,)), numbers(2, 7), native=False)


@pytest.mark.parametrize("shared_axes", [None, [1], [1, 2]])
def test_prelu(shared_axes):
    assert_same(of_layer(layers.PReLU(shared_axes=shared_axes), (3, 4, 5)), numbers(2, 3, 4, 5))


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.data(), batches)
@examples
def test_batch_normalization(shape, data, batch):
    axis = data.draw(st.integers(1, len(shape)))
    scale, center = data.draw(st.booleans()), data.draw(st.booleans())
    layer = layers.BatchNormalization(axis=axis, scale=scale, center=center)
    assert_same(of_layer(layer, tuple(shape)), numbers(batch, *shape))


@pytest.mark.parametrize("axis", [-1, 1, [1, 2], [-2, -1]])
def test_layer_normalization(axis):
    if keras.backend.backend() == "torch" and axis in (1, [1, 2]):
        pytest.skip("Keras on PyTorch cannot run it")
    layer = layers.LayerNormalization(axis=axis, epsilon=1e-2)
    assert_same(of_layer(layer, (4, 5, 3)), numbers(2, 4, 5, 3))


shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def of_layer_in_a_layout(layer, shape, in_planes):
    """A model of one layer, which finds its input in the layout that a kernel leaves it in."""
    x = keras.Input(shape)
    y = layers.MaxPooling2D(1)(x) if in_planes and len(shape) == 3 else x
    return randomize(keras.Model(x, layer(y)))


@given(shapes, st.data(), batches, st.integers(1, 4), st.booleans())
@examples
def test_normalization_over_axes(shape, data, batch, num_threads, in_planes):
    rank = len(shape)
    axes = data.draw(st.sets(st.integers(1, rank), min_size=1))
    kind = data.draw(st.sampled_from(["layer", "unit", "unit operation", "rms"]))
    if kind == "layer":
        scale, center = data.draw(st.booleans()), data.draw(st.booleans())
        if keras.backend.backend() == "torch":
            axes = {rank}  # Keras cannot run all others there
        layer = layers.LayerNormalization(axis=list(axes), epsilon=1e-2, scale=scale, center=center)
    elif kind == "rms":
        axes = list(range(data.draw(st.integers(1, rank)), rank + 1))
        layer = layers.RMSNormalization(axis=axes)
    elif kind == "unit":
        layer = layers.UnitNormalization(axis=list(axes))
    else:
        axis, epsilon = data.draw(st.integers(1, rank)), data.draw(st.sampled_from([None, 2.0]))
        layer = layers.Lambda(lambda x: ops.normalize(x, axis, epsilon=epsilon))
    model = of_layer_in_a_layout(layer, shape, in_planes)
    assert_same(model, numbers(batch, *shape), num_threads=num_threads)


@given(shapes, st.integers(1, 4), st.data(), batches, st.integers(1, 4), st.booleans())
@examples
def test_group_normalization(shape, groups, data, batch, num_threads, in_planes):
    axis = data.draw(st.integers(1, len(shape)))
    shape[axis - 1] *= groups
    # Keras subtracts squares on some backends: with a small epsilon it is less exact.
    layer = layers.GroupNormalization(
        data.draw(st.sampled_from([groups, -1])),
        axis=axis - data.draw(st.sampled_from([0, len(shape) + 1])),
        epsilon=0.1,
        scale=data.draw(st.booleans()),
        center=data.draw(st.booleans()),
    )
    model = of_layer_in_a_layout(layer, shape, in_planes)
    assert_same(model, numbers(batch, *shape) + 1, num_threads=num_threads)


def test_normalization_survives_a_file(tmp_path):
    x = keras.Input((None, None, 6))
    y = layers.Conv2D(8, 3)(layers.RMSNormalization()(x))
    y = layers.GroupNormalization(2)(y)
    y = layers.UnitNormalization(axis=[1, 2])(layers.GroupNormalization(-1)(y))
    model = randomize(keras.Model(x, y))
    engine = assert_same(model, numbers(2, 9, 12, 6))
    assert_same(model, numbers(3, 4, 5, 6))
    data = numbers(1, 6, 5, 6)
    assert_survives_a_file(engine, data, tmp_path)


def test_normalization_of_zeros():
    layer = layers.UnitNormalization()
    assert_same(of_layer(layer, (4,)), np.float32([[0, 0, 0, 0], [0, 2, 0, 0], [1e-8, 0, 0, 0]]))
    assert_same(of_layer(layers.GroupNormalization(2), (3, 4)), np.zeros((2, 3, 4), "float32"))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Rescaling(1 / 127.5, -1),
        layers.Rescaling([1.0, 2.0, 0.5], offset=[0.0, 1.0, -1.0]),
        layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 0.0, 1.0]),
        layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 0.5, 1.0], invert=True),
        layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 0.5], axis=2),
        layers.Normalization(mean=1.0, variance=4.0, axis=None),
        layers.Dropout(0.5),
        layers.SpatialDropout2D(0.5),
        layers.GaussianNoise(1.0),
        layers.GaussianDropout(0.5),
        layers.Identity(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_without_weights_to_skip(layer):
    assert_same(of_layer(layer, (4, 2, 3)), numbers(2, 4, 2, 3))


MERGES = (
    layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
)  # fmt: skip


@given(
    st.sampled_from(MERGES), st.lists(st.integers(1, 20), min_size=1, max_size=3), st.data(),
    batches, st.booleans(),
)  # fmt: skip
@examples
def test_merging(cls, shape, data, batch, in_planes):
    """Of shapes that are broadcast, in both layouts that the engine has."""
    other = [data.draw(st.sampled_from([1, n])) for n in shape]
    shapes = [shape, other]
    if data.draw(st.booleans()):
        shapes.reverse()
    inputs = [keras.Input(s) for s in shapes]
    tensors = inputs
    if in_planes and len(shape) == 3:
        tensors = [layers.MaxPooling2D(1)(x) for x in inputs]
    model = keras.Model(inputs, cls()(tensors))
    assert_same(model, [numbers(batch, *s, seed=i) for i, s in enumerate(shapes)])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.data(), batches, st.booleans())
@examples
def test_concatenate(shape, data, batch, in_planes):
    axis = data.draw(st.integers(1, len(shape)))
    shapes = [[*shape[: axis - 1], data.draw(st.integers(1, 5)), *shape[axis:]] for _ in range(3)]
    inputs = [keras.Input(s) for s in shapes]
    tensors = inputs
    if in_planes and len(shape) == 3:
        tensors = [layers.MaxPooling2D(1)(x) for x in inputs]
    model = keras.Model(inputs, layers.Concatenate(axis=axis)(tensors))
    assert_same(model, [numbers(batch, *s, seed=i) for i, s in enumerate(shapes)])


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        (((5,), (5,)), 1),
        (((3, 5), (3, 5)), 2),
        (((3, 5), (5, 2)), (2, 1)),
        (((3, 5), (3, 4)), 1),
        (((5,), (3, 5)), (1, 2)),
    ],
)
def test_dot(shapes, axes):
    inputs = [keras.Input(s) for s in shapes]
    model = keras.Model(inputs, layers.Dot(axes)(inputs))
    assert_same(model, [numbers(4, *s, seed=i) for i, s in enumerate(shapes)])


ARRAY = np.float32([1.5, -2.0, 0.25])
OPERATIONS = {
    "numbers": lambda x: (x + 1) * 2 - (3 - x) / 4,
    "reciprocal": lambda x: 1 / (ops.abs(x) + 1) + ops.reciprocal(x * x + 1),
    "powers": lambda x: x**2 + ops.abs(x) ** 0.5 + (ops.square(x) + 1) ** -0.5 + ops.abs(x) ** 1.7,
    "two to the x": lambda x: 2.0**x,
    "roots": lambda x: ops.sqrt(ops.abs(x)) + ops.rsqrt(ops.exp(x)) + ops.log(ops.abs(x) + 1),
    "bounds": lambda x: ops.clip(x, -0.5, 0.7) + ops.maximum(x, 0.1) + ops.minimum(-x, 0.2),
    "array behind": lambda x: (x + ARRAY) * ARRAY - ARRAY,
    "array before": lambda x: ops.subtract(ARRAY, x),
    "array over": lambda x: ops.divide(ARRAY, x * x + 1) + x / ARRAY,
    "array of pixels": lambda x: x * np.arange(8, dtype="float32").reshape(2, 4, 1) - 1,
    "mean": lambda x: x - ops.mean(x, axis=-1, keepdims=True),
    "mean of pixels": lambda x: ops.mean(x, axis=(1, 2), keepdims=True) + ops.max(x, axis=(1, 2)),
    "sums": lambda x: ops.sum(x, axis=1) + ops.min(x, axis=1) * ops.max(x, axis=(1, 2))[:, None],
    "softmax": lambda x: ops.softmax(x, axis=2) + ops.log_softmax(x),
    "activations": lambda x: ops.gelu(x) + ops.silu(x) + ops.relu(x) + ops.leaky_relu(x, 0.1),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    "matmul with weights": lambda x: ops.matmul(x, np.ones((3, 5), "float32")),
    "einsum": lambda x: ops.einsum("bhwc,bhvc->bvhw", x, x),
    "cast": lambda x: ops.cast(x > 0, "float32") + ops.cast(ops.cast(x * 4, "int32"), "float32"),
    "where": lambda x: ops.where(x > 0.3, x, -1.0) + ops.where(x < 0, ARRAY, ops.exp(x)),
    "where some pixels are": lambda x: ops.where(x[..., :1] > 0, x, x[:, :1] * 2),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name):
    x = keras.Input((2, 4, 3))
    for y in (x, layers.MaxPooling2D(1)(x)):
        model = keras.Model(x, OPERATIONS[name](y))
        assert_same(model, numbers(3, 2, 4, 3), native=name != "two to the x")


def test_integers():
    x = keras.Input((4,), dtype="int32")
    model = keras.Model(x, [x + 1, layers.Rescaling(0.5)(x), ops.concatenate([x, x], 1), x])
    engine = assert_same(model, np.arange(8, dtype="int32").reshape(2, 4), native=False)
    assert engine is not None


INTEGER_OPERATIONS = {
    "concatenate": lambda x: layers.Concatenate()([x, x]),
    "add": lambda x: layers.Add()([x, x]),
    "relu": lambda x: layers.ReLU()(x),
    "flatten": lambda x: layers.Flatten()(x),
    "clip": lambda x: ops.clip(x, 0.5, 5.5),
    "product with weights": lambda x: layers.Dense(3)(layers.Flatten()(x)),
    "wide": lambda x: [ops.cast(x, "int64"), ops.cast(x, "float64")],
    "whether": lambda x: layers.Concatenate()([x > 2, x < 1]),
}


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
@pytest.mark.parametrize("name", INTEGER_OPERATIONS)
def test_dtypes_are_those_that_keras_gives_not_those_it_declares(name):
    x = keras.Input((4,), dtype="int32")
    model = randomize(keras.Model(x, INTEGER_OPERATIONS[name](x)))
    if keras.backend.backend() == "tensorflow" and name == "clip":
        pytest.skip("TensorFlow clips integers to integers only")
    is_float = name in ("wide", "product with weights")
    largest = 7 if is_float else (1 << 24) + 1  # which float32 cannot hold
    data = np.int32([[-3, 0, 1, 2], [3, 5, 6, largest]])
    assert_same(model, data, 1e-6 if is_float else 0, native=False)


@pytest.mark.parametrize("is_nested", [False, True])
def test_complex_numbers_stay_within_keras(is_nested):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("Keras on TensorFlow cannot run it")
    x = keras.Input((4, 2))
    y = ops.abs(ops.view_as_complex(layers.Dense(2)(x)))
    if is_nested:
        y = layers.Dense(3)(keras.Model(x, y)(x))
    engine = assert_same(randomize(keras.Model(x, y)), numbers(2, 4, 2), native=False)
    assert kinds(engine) == ["KerasCall"]
    with pytest.raises(ValueError, match="real numbers.*complex64"):
        Engine(keras.Model(x, ops.view_as_complex(x)))


def test_numbers_without_a_batch_axis():
    x = keras.Input((4,))
    assert_same(keras.Model(x, x / ops.sum(ops.abs(x))), numbers(2, 4), native=False)
    with pytest.raises(ValueError, match=r"first axis is that of the batch.*shape \(\)"):
        Engine(keras.Model(x, ops.sum(x)))


@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_embedding(mask_zero, dtype):
    layer = layers.Embedding(10, 6, mask_zero=mask_zero)
    x = np.arange(10).reshape(2, 5).astype(dtype)
    assert_same(of_layer(layer, (5,), dtype=dtype), x)
