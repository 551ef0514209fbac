"""Products with weights: dense layers and convolutions of all kinds, over their settings."""

import keras
import numpy as np
import pytest
from helpers import assert_same, batches, examples, kinds, numbers, of_layer, randomize, sparsities
from hypothesis import assume, given
from hypothesis import strategies as st
from keras import layers

from keras_trim.inference.kernels.instructions import PAD

channels = st.integers(1, 13)


@given(
    st.lists(st.integers(1, 9), min_size=0, max_size=2), channels, st.integers(1, 70), batches,
    sparsities, st.booleans(),
)  # fmt: skip
@examples
def test_dense(lead, width, units, batch, sparsity, use_bias):
    layer = layers.Dense(units, use_bias=use_bias, activation="relu")
    assert_same(of_layer(layer, (*lead, width), sparsity), numbers(batch, *lead, width))


@pytest.mark.parametrize(
    ("equation", "shape", "output", "bias"),
    [
        ("ab,bc->ac", (6,), 5, "c"),
        ("abc,cd->abd", (4, 6), (None, 5), "d"),
        ("abc,cde->abde", (4, 6), (None, 3, 5), "de"),
        ("abcd,cde->abe", (4, 2, 6), (None, 5), "e"),
        ("...x,xy->...y", (3, 4, 6), 5, "y"),
        ("abc,bd->acd", (4, 6), (6, 5), None),
    ],
)
def test_einsum_dense(equation, shape, output, bias):
    layer = layers.EinsumDense(equation, output, bias_axes=bias, activation="tanh")
    assert_same(of_layer(layer, shape), numbers(3, *shape))


@st.composite
def convolutions(draw, rank, paddings=("valid", "same")):
    """Settings of a convolution and the shape of an input that it takes."""
    kernel = draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank))
    stride = draw(st.integers(1, 3))
    dilation = 1 if stride > 1 else draw(st.integers(1, 3))
    size = [draw(st.integers((k - 1) * dilation + 1, 19)) for k in kernel]
    settings = {
        "kernel_size": tuple(kernel),
        "strides": stride,
        "dilation_rate": dilation,
        "padding": draw(st.sampled_from(paddings)),
        "use_bias": draw(st.booleans()),
    }
    return settings, tuple(size)


@given(convolutions(2), st.integers(1, 3), st.integers(1, 5), channels, batches, sparsities)
@examples
def test_convolution_2d(convolution, groups, width, filters, batch, sparsity):
    settings, size = convolution
    assume(batch < 33 or size[0] < 9)
    layer = layers.Conv2D(filters * groups, groups=groups, activation="relu6", **settings)
    shape = (*size, width * groups)
    assert_same(of_layer(layer, shape, sparsity), numbers(batch, *shape))


@given(
    convolutions(2), st.sampled_from([layers.Conv2D, layers.Conv2DTranspose]), channels, batches,
    st.integers(0, 50), st.integers(1, 3),
)  # fmt: skip
@examples
def test_convolution_of_an_image_in_color(convolution, cls, filters, batch, more, num_threads):
    """The channels of a pixel lie together in what is handed to the engine."""
    settings, (height, width) = convolution
    assume(batch < 33 or height < 9)
    shape = height, width + more, 3
    model = of_layer(cls(filters, **settings), shape)
    assert_same(model, numbers(batch, *shape), num_threads=num_threads)


def test_color_that_two_layers_see():
    """One of them takes whole planes, the other pixels."""
    x = keras.Input((37, 41, 3))
    strided = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    pooled = layers.DepthwiseConv2D(3, padding="same")(x)
    again = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    assert_same(keras.Model(x, [strided, pooled, again]), numbers(2, 37, 41, 3))


def test_layers_that_pad_an_image_alike_share_the_copy():
    x = keras.Input((12, 14, 5))
    y = layers.Conv2D(5, 1, activation="relu")(x)
    alike = [layers.Conv2D(4, 1, strides=2)(y), layers.Conv2D(6, 1, strides=2)(y)]
    others = [layers.Conv2D(4, size, 2, "same")(y) for size in (3, 5)]
    engine = assert_same(
        randomize(keras.Model(x, [*alike, *others, layers.Conv2D(4, 3, strides=2)(y)])),
        numbers(2, 12, 14, 5),
    )
    runner = engine._runner([numbers(2, 12, 14, 5)], skip_zeros=True)
    assert np.count_nonzero(runner.program.table[:, 0] == PAD.code) == 4


@given(
    convolutions(1, ("valid", "same", "causal")), st.integers(1, 3), st.integers(1, 5), channels,
    batches, sparsities,
)  # fmt: skip
@examples
def test_convolution_1d(convolution, groups, width, filters, batch, sparsity):
    settings, size = convolution
    layer = layers.Conv1D(filters * groups, groups=groups, **settings)
    shape = (*size, width * groups)
    assert_same(of_layer(layer, shape, sparsity), numbers(batch, *shape))


@given(convolutions(2), st.integers(1, 3), channels, batches, sparsities)
@examples
def test_depthwise_convolution_2d(convolution, multiplier, width, batch, sparsity):
    settings, size = convolution
    layer = layers.DepthwiseConv2D(depth_multiplier=multiplier, activation="relu", **settings)
    assert_same(of_layer(layer, (*size, width), sparsity), numbers(batch, *size, width))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(7, 7), (16, 33), (40, 18)])
def test_depthwise_convolution_by_lines(kernel, stride, padding, size):
    layer = layers.DepthwiseConv2D(kernel, strides=stride, padding=padding)
    assert_same(of_layer(layer, (*size, 3)), numbers(2, *size, 3))


@pytest.mark.parametrize("padding", [((1, 2), (3, 4)), ((5, 0), (16, 1)), ((0, 0), (17, 0)), 1])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution_of_a_padded_image(padding, stride):
    model = keras.Sequential(
        [
            keras.Input((9, 21, 3)),
            layers.ZeroPadding2D(padding),
            layers.DepthwiseConv2D(3, strides=stride, bias_initializer="ones"),
        ]
    )
    assert_same(model, numbers(2, 9, 21, 3))


@pytest.mark.parametrize("num_threads", [2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(100, 50), (9, 600)])
def test_depthwise_convolution_in_bands(size, stride, num_threads):
    """Of a large image each thread computes some lines, of all channels."""
    layer = layers.DepthwiseConv2D(3, strides=stride, padding="same", depth_multiplier=2)
    assert_same(of_layer(layer, (*size, 3)), numbers(1, *size, 3), num_threads=num_threads)


@given(convolutions(1), st.integers(1, 2), channels, batches, sparsities)
@examples
def test_depthwise_convolution_1d(convolution, multiplier, width, batch, sparsity):
    settings, size = convolution
    layer = layers.DepthwiseConv1D(depth_multiplier=multiplier, **settings)
    assert_same(of_layer(layer, (*size, width), sparsity), numbers(batch, *size, width))


@given(st.sampled_from([1, 2]), st.data(), channels, channels, sparsities)
@examples
def test_separable_convolution(rank, data, width, filters, sparsity):
    settings, size = data.draw(convolutions(rank))
    cls = layers.SeparableConv1D if rank == 1 else layers.SeparableConv2D
    layer = cls(filters, depth_multiplier=2, activation="relu", **settings)
    assert_same(of_layer(layer, (*size, width), sparsity), numbers(2, *size, width))


@given(st.sampled_from([1, 2]), st.data(), channels, channels, batches, sparsities)
@examples
def test_transposed_convolution(rank, data, width, filters, batch, sparsity):
    settings, size = data.draw(convolutions(rank))
    if data.draw(st.booleans()):
        most = settings["strides"] - 1
        more = st.lists(st.integers(0, most), min_size=rank, max_size=rank)
        more = settings["output_padding"] = tuple(data.draw(more))
        if keras.backend.backend() == "tensorflow" and settings["padding"] == "same":
            odd = [k % 2 for k in settings["kernel_size"]]  # it refuses other sizes of outputs
            assume(all(1 <= a + b <= most + 1 for a, b in zip(odd, more, strict=True)))
    cls = layers.Conv1DTranspose if rank == 1 else layers.Conv2DTranspose
    layer = cls(filters, activation="relu", **settings)
    num_threads = data.draw(st.integers(1, 3))
    model = of_layer(layer, (*size, width), sparsity)
    assert_same(model, numbers(batch, *size, width), num_threads=num_threads)


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", "sparsemax"])
@pytest.mark.parametrize(
    "cls",
    [layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose],
)
def test_activations_over_the_last_axis_of_channels_first(cls, activation):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no such convolutions on a CPU")
    sizes = (3,) if cls is layers.DepthwiseConv2D else (4, 3)
    layer = cls(*sizes, activation=activation, data_format="channels_first")
    assert_same(of_layer(layer, (2, 5, 6)), numbers(2, 2, 5, 6), native=activation != "sparsemax")


def test_pixels_of_free_number():
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(5, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(5, 3, padding="same")(y) + y
    model = randomize(keras.Model(x, layers.GlobalAveragePooling2D()(y)))
    for size in ((7, 9), (16, 16), (3, 1)):
        assert_same(model, numbers(2, *size, 3))


def test_what_follows_a_convolution_is_folded_into_it():
    x = keras.Input((9, 9, 3))
    y = layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    y = layers.Conv2D(8, 3, strides=2)(y)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    z = layers.BatchNormalization()(layers.Conv2D(8, 1)(y))
    z = layers.ReLU()(layers.Add()([y, z * 0.5 + 1.0]))
    engine = assert_same(randomize(keras.Model(x, z)), numbers(2, 9, 9, 3))
    assert kinds(engine) == ["Convolution", "Convolution"]


def test_nothing_is_folded_into_a_convolution_whose_sums_are_used_elsewhere():
    x = keras.Input((9, 9, 3))
    y = layers.Conv2D(8, 3, padding="same")(x)
    z = layers.BatchNormalization()(y)
    model = keras.Model(x, [y, layers.ReLU()(z), layers.Add()([y, z]), layers.Add()([y, y])])
    assert_same(randomize(model), numbers(2, 9, 9, 3))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("order", "expected"),
    [
        # Fewer channels, fewer pixels.
        ([layers.AveragePooling2D(3, 1), layers.Conv2D(4, 1, activation="relu")], "CP"),
        ([layers.Conv2D(4, 1), layers.AveragePooling2D(2)], "PC"),
        ([layers.Conv2D(40, 1, groups=4), layers.AveragePooling2D((2, 3), (1, 2))], "PC"),
        # In order already.
        ([layers.AveragePooling2D(3, 1), layers.Conv2D(16, 1)], "PC"),
        ([layers.AveragePooling2D(3, 2), layers.Conv2D(4, 1)], "PC"),
        ([layers.Conv2D(4, 1), layers.AveragePooling2D(3, 1)], "CP"),
        # They may not change places.
        ([layers.AveragePooling2D(3, 1), layers.Conv2D(4, 2)], "PC"),
        ([layers.AveragePooling2D(3, 1), layers.Conv2D(4, 1, strides=2)], "PC"),
        ([layers.MaxPooling2D(3, 1), layers.Conv2D(4, 1)], "PC"),
        ([layers.Conv2D(4, 1, activation="relu"), layers.AveragePooling2D(2)], "CP"),
    ],
)
def test_means_and_pointwise_products_in_the_cheaper_order(order, expected, padding):
    x = y = keras.Input((9, 8, 16))
    for layer in order:
        config = layer.get_config()
        # PyTorch repeats the image's edge where strides leave more padding behind than in front.
        if "pool_size" in config and set(config["strides"]) == {1}:
            config["padding"] = padding
        y = type(layer).from_config(config)(y)
    engine = assert_same(randomize(keras.Model(x, y), 0.5), numbers(2, 9, 8, 16))
    assert "".join(kind[0] for kind in kinds(engine)) == expected


def test_a_sum_goes_into_a_convolution_behind_a_mean():
    x = keras.Input((9, 8, 16))
    y = layers.Conv2D(4, 1)(layers.AveragePooling2D(3, 1, "same")(x))
    model = randomize(keras.Model(x, layers.Add()([y, layers.Conv2D(4, 3, padding="same")(x)])))
    engine = assert_same(model, numbers(2, 9, 8, 16))
    assert sorted(kinds(engine)) == ["Convolution", "Convolution", "Pool"]


# Kernels write whole vectors: nothing may be left of them in a plane that another thread computes.
@pytest.mark.parametrize("num_threads", [1, 2, 4])
@pytest.mark.parametrize("size", [(9, 1), (13, 5), (28, 28)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Conv2D(24, 1, strides=2),
        lambda: layers.Conv2D(24, 7, padding="same", strides=2),
        lambda: layers.DepthwiseConv2D(9, padding="same"),
        lambda: layers.DepthwiseConv2D(3, padding="same"),
        lambda: layers.MaxPooling2D(3, strides=1, padding="same"),
    ],
)
def test_planes_of_threads(make, size, num_threads):
    model = of_layer(make(), (*size, 24))
    assert_same(model, numbers(2, *size, 24), num_threads=num_threads)


@pytest.mark.parametrize("size", [(16, 16), (8, 32), (32, 32)])
def test_images_whose_planes_would_crowd_a_cache(size):
    x = inputs = keras.Input((*size, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([x, layers.DepthwiseConv2D(3, padding="same")(x)])
    x = layers.GroupNormalization(4)(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 1)(layers.Activation("tanh")(x))
    x = layers.UpSampling2D()(layers.MaxPooling2D()(x))
    x = layers.Add()([x, layers.Resizing(*size)(layers.AveragePooling2D(2)(x))])
    x = layers.Permute((2, 1, 3))(x)
    outputs = [x, layers.GlobalAveragePooling2D()(x), layers.Dense(4)(layers.Flatten()(x))]
    assert_same(randomize(keras.Model(inputs, outputs), 0.8), numbers(2, *size, 3))
