"""Python in the `call` of a layer: what a trace of it cannot hold runs in Keras."""

import threading

import keras
import numpy as np
import pytest
from helpers import assert_same, kinds, numbers
from keras import layers, ops

from keras_trim.inference import Engine


class Calling(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def model_of(function, shape=(3, 4)):
    x = keras.Input(shape)
    return keras.Model(x, Calling(function)(x))


def cumulated(x):
    def step(carry, part):
        return carry + part * ops.mean(x), carry

    return ops.scan(step, x[:, 0], ops.transpose(x, (1, 0, 2)))[0]


CLOSURES = {
    "map": lambda x: ops.map(lambda part: part * ops.mean(x), x),
    "scan": cumulated,
    "vectorized map": lambda x: ops.vectorized_map(lambda part: part * ops.sum(x), x),
    "associative scan": lambda x: ops.associative_scan(lambda a, b: a + b * ops.mean(x), x, axis=1),
    "for": lambda x: ops.fori_loop(0, 3, lambda i, y: y * 0.5 + x, x),
    "while": lambda x: ops.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, y + x), (ops.zeros((), "int32"), x)
    )[1],
    "condition": lambda x: ops.cond(ops.sum(x) > 0, lambda: x * 2, lambda: x - 1),
}


@pytest.mark.parametrize("name", CLOSURES)
def test_operations_that_call_functions(name):
    assert_same(model_of(CLOSURES[name]), numbers(2, 3, 4), native=False)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
def test_norms(axis):
    assert_same(model_of(lambda x: ops.norm(x, axis=axis)), numbers(2, 3, 4), native=False)


SIZES = {
    "default": lambda x: x * (x.shape[1] or 10),
    "batch": lambda x: x * 2 if x.shape[0] == 1 else x,
    "unknown": lambda x: x * 3 if x.shape[1] is None else ops.tanh(x),
    "operation": lambda x: ops.sin(x) if x.shape[1] else ops.cos(x),
    "slice": lambda x: ops.transpose(x, (0, 2, 1))[:, : x.shape[1]],
}
if keras.backend.backend() != "jax":  # where Keras's own inference of shapes fails
    SIZES["constant"] = lambda x: x + np.arange(x.shape[1] or 1, dtype="float32")[:, None]


not_on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="whether `predict` shows a size to Python depends on the calls before",
)


@not_on_tensorflow
@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_python_asks_for(name):
    model = model_of(SIZES[name], (None, 4))
    for shape in ((1, 3, 4), (2, 3, 4), (2, 2, 4)):
        assert_same(model, numbers(*shape), native=False)


class Asking(keras.Model):
    def call(self, x):
        return x * (x.shape[0] or 7)


@not_on_tensorflow
def test_models_that_ask_for_the_size_of_the_batch():
    model = Asking()
    model(numbers(2, 4))
    for batch in (1, 3):
        assert_same(model, numbers(batch, 4), native=False)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.reshape(ops.tanh(x), ops.shape(x)),
        lambda x: ops.reshape(x, (-1, x.shape[1], 2, 2)) if x.shape[1] else x,
        lambda x: ops.relu(x) * np.arange(4, dtype="float32") + ops.mean(x, 1, keepdims=True),
        lambda x: layers.Softmax()(x) + ops.full((4,), 0.5),
    ],
)
def test_sizes_that_do_not_matter(function):
    assert_same(model_of(function), numbers(2, 3, 4))
    assert "KerasCall" not in kinds(assert_same(model_of(function), numbers(1, 3, 4)))


class VariablesFirst(layers.Layer):
    """Variables to the left of the tensors, where Python asks the variable first."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=shape[-1:], initializer="random_normal")

    def call(self, x):
        y = self.scale + self.scale * x - (self.scale - x) / (2.0 + x * x)
        return y * self.scale / (1.0 + ops.exp(x)) + ops.cast(self.scale < 0.0, x.dtype)


TENSOR = ops.convert_to_tensor(np.arange(5, dtype="float32"))
LEFT = {
    "variables": VariablesFirst,
    "NumPy's numbers": lambda: Calling(lambda x: np.sqrt(8.0) * x - np.float32(3) / (1 + x * x)),
    "tensors": lambda: Calling(lambda x: TENSOR * x + (TENSOR - x)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_on_the_left_of_a_tensor(name):
    kept = keras.Variable.__mul__, dict(vars(keras.KerasTensor))
    x = keras.Input((5,))
    assert_same(keras.Model(x, LEFT[name]()(x)), numbers(4, 5))
    assert (keras.Variable.__mul__, dict(vars(keras.KerasTensor))) == kept


class Attending(layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4, dropout=0.1)

    def build(self, shape):
        self.attention.build(shape, shape)
        self.scale = self.add_weight(shape=(8,))

    def call(self, x):
        return self.scale * self.attention(x, x)


def test_threads_that_make_engines_leave_keras_as_it_was():
    x = keras.Input((5, 8))
    model = keras.Model(x, Attending()(x))
    places = [
        (layers.Layer, "_resolve_and_populate_arg"),
        (layers.MultiHeadAttention, "compute_output_spec"),
        (keras.Variable, "__mul__"),
        (keras.KerasTensor, "__array_ufunc__"),
    ]

    def found():
        return [getattr(cls, name, None) for cls, name in places] + [
            model.layers[1].attention._dropout
        ]

    before, engines = found(), []
    threads = [
        threading.Thread(target=lambda: engines.extend(Engine(model, 1) for _ in range(3)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found() == before
    assert len(engines) == 12
    assert len({str(kinds(engine)) for engine in engines}) == 1
