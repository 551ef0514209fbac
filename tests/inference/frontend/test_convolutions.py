"""Convolutions of `keras.ops` in layers of one's own."""

import keras
import pytest
from helpers import assert_same, kinds, numbers
from keras import layers, ops


class Convolution(layers.Layer):
    """With kernels standardized as in https://arxiv.org/abs/1903.10520."""

    def __init__(self, function, kernel, **settings):
        super().__init__()
        self.function, self.shape, self.settings = function, kernel, settings

    def build(self, _):
        self.kernel = self.add_weight(name="kernel", shape=self.shape)

    def call(self, x):
        kernel = ops.convert_to_tensor(self.kernel)
        axes = [*range(len(self.shape) - 1)]
        mean, variance = ops.moments(kernel, axes, keepdims=True)
        return self.function(x, (kernel - mean) / ops.sqrt(variance + 1e-5), **self.settings)


@pytest.mark.parametrize(
    ("image", "function", "kernel", "settings"),
    [
        ((9, 8, 6), ops.conv, (3, 3, 6, 4), {"padding": "same", "strides": 2}),
        ((9, 8, 6), ops.conv, (3, 2, 6, 4), {"dilation_rate": (1, 2)}),
        ((12, 6), ops.conv, (3, 6, 4), {"padding": "same"}),
        ((9, 8, 6), ops.depthwise_conv, (3, 3, 6, 1), {"padding": "same", "strides": (2, 2)}),
        ((12, 6), ops.depthwise_conv, (3, 6, 2), {"dilation_rate": 2}),
    ],
)
def test_convolutions(image, function, kernel, settings):
    x = keras.Input(image)
    model = keras.Model(x, Convolution(function, kernel, **settings)(x))
    engine = assert_same(model, numbers(3, *image))
    expected = {ops.conv: "Convolution", ops.depthwise_conv: "DepthwiseConvolution"}[function]
    assert kinds(engine) == [expected]
