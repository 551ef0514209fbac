"""Shapes within and around a layer: what activations see, channels, equations, broadcasting."""

import math

import keras
import pytest
from helpers import assert_same, kinds, numbers, of_layer, randomize
from keras import layers, ops


def times_weights(shape):
    """An activation for outputs of one shape."""
    weights = ops.arange(math.prod(shape), dtype="float32")
    return lambda x: x * ops.reshape(weights, shape)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda f: layers.Dense(8, activation=f), (3,)),
        (lambda f: layers.EinsumDense("abc,cde->abde", (5, 8, 2), activation=f), (5, 3)),
        (lambda f: layers.Conv1D(8, 3, padding="causal", activation=f), (7, 3)),
        (lambda f: layers.Conv2D(8, 3, strides=2, activation=f), (7, 6, 3)),
        (lambda f: layers.Conv2DTranspose(4, 3, strides=2, activation=f), (3, 4, 3)),
        (lambda f: layers.DepthwiseConv2D(2, depth_multiplier=2, activation=f), (5, 6, 3)),
        (lambda f: layers.SeparableConv2D(8, 2, activation=f), (5, 6, 3)),
    ],
)
@pytest.mark.parametrize("kind", ["function", "layer", "name"])
def test_activations_see_the_outputs(make, shape, kind):
    outputs = make(None).compute_output_shape((None, *shape))[1:]
    activation = {
        "function": times_weights(outputs),
        "layer": layers.PReLU(alpha_initializer="random_normal"),
        "name": "glu",
    }[kind]
    model = of_layer(make(activation), shape)
    assert_same(model, numbers(2, *shape), native=kind == "layer")


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("shape", [(3, 4, 3), (3, 4, 5)])
def test_rescaling_by_a_list_with_channels_first(channels_first, shape):
    model = of_layer(layers.Rescaling([1.0, 2.0, 3.0], 0.5), shape)
    assert_same(model, numbers(2, *shape), native=False)


def test_rescaling_by_lists():
    for scale, offset in (([1.0, 2.0, 3.0], [0.1, 0.2, 0.3]), ([2.0], [1.0, 2.0, 3.0]), (2.0, [1])):
        assert_same(of_layer(layers.Rescaling(scale, offset), (4, 3)), numbers(2, 4, 3))
    x = keras.Input((4, 1))  # which Keras declares, but repeats three times
    with pytest.raises(ValueError, match="an output of another shape than"):
        assert_same(keras.Model(x, layers.Rescaling([1.0, 2.0, 3.0])(x)), numbers(2, 4, 1))


def einsum(equation, *weights, then=None):
    def call(x):
        y = ops.einsum(equation, x, numbers(*weights))
        return y if then is None else ops.transpose(y, then)

    return call


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (einsum("...ab,bc->a...c", 5, 2, then=(1, 0, 2)), (4, 5)),
        (einsum("...j,jk->k", 5, 2), (4, 5)),
        (einsum("bij,jk", 5, 2), (4, 5)),
        (einsum("...,k->...k", 2), (4, 5)),
        (einsum("...j,jk->...k", 2, 3), ()),
        (einsum("bij,jk->bik", 4, 2), (3, 1)),  # PyTorch repeats the axis of size 1
        (einsum("bij,jk->bik", 1, 2), (3, 4)),
    ],
)
def test_equations(call, shape):
    data = numbers(2, *shape)
    x = keras.Input(shape)
    try:
        model = keras.Model(x, call(x))
        model.predict_on_batch(data)
    except Exception as error:
        pytest.skip(f"Keras cannot: {error!r:.100}")
    assert_same(model, data, native=False)


@pytest.mark.parametrize("equation", ["...c,cd->...d", "abc,cd->abd"])
def test_equations_that_are_dense_layers(equation):
    x = keras.Input((4, 5))
    engine = assert_same(keras.Model(x, einsum(equation, 5, 2)(x)), numbers(2, 4, 5))
    assert kinds(engine) == ["Dense"]


def test_matrix_times_the_batch():
    x = keras.Input(())
    weights = numbers(6, 2)
    assert_same(keras.Model(x, ops.matmul(x, weights)), numbers(6), native=False)


def test_attention_with_fewer_heads_of_values():
    query, key = keras.Input((5, 3, 4)), keras.Input((6, 3, 4))
    data = [numbers(2, 5, 3, 4), numbers(2, 6, 3, 4)]
    try:
        model = keras.Model([query, key], ops.dot_product_attention(query, key, key[:, :, :1]))
        model.predict_on_batch(data)
    except Exception as error:
        pytest.skip(f"Keras cannot: {error!r:.100}")
    assert_same(model, data, native=False)


@pytest.mark.parametrize("softmax", [ops.softmax, ops.log_softmax])
def test_softmax_over_two_axes(softmax):
    x = keras.Input((3, 4))
    try:
        model = keras.Model(x, softmax(x, axis=(1, 2)))
        model.predict_on_batch(numbers(2, 3, 4))
    except Exception as error:
        pytest.skip(f"Keras cannot: {error!r:.100}")
    assert_same(model, numbers(2, 3, 4), native=False)


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="its products of no inputs end the process"
)
@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.Dense(3, activation="relu"), (0,)),
        (lambda: layers.Dense(3), (4, 0)),
        (lambda: layers.EinsumDense("abc,cd->abd", (4, 3), bias_axes="d"), (4, 0)),
        (lambda: layers.LSTM(3), (4, 0)),
    ],
)
def test_layers_without_inputs(make, shape, batch):
    """Only the bias is left."""
    x = keras.Input(shape)
    model = keras.Model(x, make()(x))
    for weight in model.weights:
        weight.assign(numbers(*weight.shape))
    assert_same(model, numbers(batch, *shape), native=False)


def test_repeated_vectors_of_any_width():
    x = keras.Input((None,))
    assert_same(randomize(keras.Model(x, layers.RepeatVector(3)(x))), numbers(4, 5))
