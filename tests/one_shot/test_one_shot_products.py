"""What a kernel is said to multiply, against what its layer gives."""

import keras
import numpy as np
import pytest
from conftest import values
from keras import layers

from keras_trim.one_shot.product import to_numpy
from keras_trim.one_shot.products import products_of

LAYERS = {
    "dense": (lambda: layers.Dense(5), (7,)),
    "dense on a sequence": (lambda: layers.Dense(5), (3, 7)),
    "einsum, heads": (
        lambda: layers.EinsumDense("abc,cde->abde", (3, 2, 4), bias_axes="de"),
        (3, 6),
    ),
    "einsum, heads joined": (
        lambda: layers.EinsumDense("abde,dec->abc", (3, 5), bias_axes="c"),
        (3, 2, 4),
    ),
    "einsum, stacked": (
        lambda: layers.EinsumDense("abgc,gcd->abgd", (3, 2, 5), bias_axes="gd"),
        (3, 2, 4),
    ),
    "einsum, any rank": (lambda: layers.EinsumDense("...x,xy->...y", 5, bias_axes="y"), (3, 6)),
    "einsum, ellipsis last": (
        lambda: layers.EinsumDense("ab...,bc->ac...", (5, 3), bias_axes="c"),
        (6, 3),
    ),
    "conv 1d, causal": (lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (9, 2)),
    "conv 2d": (lambda: layers.Conv2D(4, (3, 2), strides=2), (8, 7, 3)),
    "conv 2d, same": (lambda: layers.Conv2D(4, 3, strides=2, padding="same"), (8, 7, 3)),
    "conv 2d, dilated": (lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same"), (8, 7, 3)),
    "conv 2d, groups": (lambda: layers.Conv2D(6, 3, groups=2), (6, 5, 4)),
    "conv 3d": (lambda: layers.Conv3D(3, 2, strides=(1, 2, 1)), (4, 5, 4, 2)),
    "separable": (lambda: layers.SeparableConv2D(5, 3, strides=2, padding="same"), (8, 7, 3)),
    "separable 1d": (lambda: layers.SeparableConv1D(5, 3), (8, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_kernel_is_what_the_layer_gives(name, rng):
    make, shape = LAYERS[name]
    model = keras.Sequential([keras.Input(shape), make()])
    (product,) = products_of(model).values()
    x = keras.ops.convert_to_tensor(rng.standard_normal((2, *shape)).astype("float32"))
    systems, inputs, outputs = product.shape
    kernel = to_numpy(product.variable)
    matrices = product.to_matrices(kernel)
    assert matrices.shape == (systems, inputs, outputs)
    np.testing.assert_array_equal(product.from_matrices(matrices), kernel)
    rows = product.rows(x)
    assert rows.shape[0] == systems
    assert rows.shape[2] == inputs
    y = rows @ matrices
    np.testing.assert_allclose(product.outputs(x, product.variable), y, atol=1e-5)
    # A shift of the outputs goes into the bias, and nowhere else.
    shift = rng.standard_normal((systems, outputs))
    before = values(model(x)).astype("float64")
    assert product.has_free_bias
    product.bias.assign(product.shifted_bias(to_numpy(product.bias), shift))
    moved = values(model(x)) - before
    np.testing.assert_allclose(sorted(moved.ravel()), spread(shift, moved.size), atol=1e-5)
    product.variable.assign(product.from_matrices(np.zeros_like(matrices)))
    plain = before - values(model(x)) + moved
    np.testing.assert_allclose(sorted(plain.ravel()), sorted(y.ravel()), atol=1e-4)


def spread(shift, size):
    return sorted(np.repeat(shift.ravel(), size // shift.size))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_the_input_kernel_of_a_recurrent_layer(kind, rng):
    model = keras.Sequential([keras.Input((3, 4)), getattr(layers, kind)(5)])
    (product,) = products_of(model).values()
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    np.testing.assert_array_equal(product.rows(x)[0], x.reshape(6, 4))
    # What the input kernel gives for a constant is what the bias could give.
    constant = np.ones((2, 3, 4), "float32")
    expected = values(model(constant))
    shift = to_numpy(product.variable).sum(0)[None]
    product.variable.assign(np.zeros(product.variable.shape))
    product.bias.assign(product.shifted_bias(to_numpy(product.bias), shift))
    np.testing.assert_allclose(values(model(constant)), expected, atol=1e-5)


def test_layers_with_a_call_of_their_own_are_left_out():
    class Own(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    shared = layers.Dense(4)

    class Tied(layers.Dense):
        def build(self, input_shape):
            self._kernel, self.bias = shared._kernel, shared.bias
            self.built = True

    model = keras.Sequential([keras.Input((4,)), Own(4), shared])
    assert list(products_of(model)) == [id(shared._kernel)]
    assert not products_of(keras.Sequential([keras.Input((4,)), shared, Tied(4)]))
