"""Layers that stay dense: one warning where that may be a surprise, none where it is intended."""

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp, values, zeros
from keras import layers
from odd_layers import Weights, model_of, pruned, told

import keras_trim
from keras_trim import ConstantSparsity

HALF = ConstantSparsity(0.5, 0)


class Linear(layers.Layer):
    """A layer from the Keras guide on custom layers: its weights have no names."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units))
        self.b = self.add_weight(shape=(self.units,), initializer="zeros")

    def call(self, x):
        return keras.ops.matmul(x, self.w) + self.b


def test_weights_without_names(data):
    model = model_of(Linear(16))
    assert told(lambda: keras_trim.prune_low_magnitude(model, HALF)) == []
    model.compile("adam", "mse")
    fit(model, data)
    assert zeros(model) == [64, 8]
    keras_trim.strip_pruning(model)
    assert told(lambda: keras_trim.prune(model, 0.75)) == []
    assert np.count_nonzero(values(model.layers[0].w)) == 32


def test_weights_in_doubt_are_told_at_once_for_all_layers():
    doubtful = [Weights({"codebook": (4, 6), "memory": (2, 5)}) for _ in range(6)]
    model = model_of(*doubtful, Weights({"codebook": (4, 6), "kernel": (4, 6)}))
    (message,) = told(lambda: keras_trim.prune_low_magnitude(model, HALF))
    assert "6 layers, '" in message
    assert "(204 weights): its name does not tell that it is a matrix" in message
    assert "get_prunable_weights()" in message
    assert message.count("'weights") == 4  # names
    assert message.count("does not tell") == 1  # the reason


def test_each_reason_is_told_once():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(16, 3, name="first"),
            Weights({"codebook": (4, 6)}, name="vq"),
            layers.Conv2D(8, 3),
            layers.DepthwiseConv2D(3),
            layers.Dense(1),
        ]
    )
    for act in (
        lambda: keras_trim.prune_low_magnitude(model, sparsity_m_by_n=(2, 4)),
        lambda: keras_trim.prune(model, None, sparsity_m_by_n=(2, 4)),
    ):
        (message,) = told(act)
        assert "first' (288 weights): 2 input channels: 2:4 keeps them all" in message
        assert "vq' (24 weights): its name does not" in message


def test_layers_that_are_built_later_are_told_later(data):
    layer = Weights({})
    layer.built = False
    layer.build = lambda shape: layer.own.append(layer.add_weight(shape=(4, 6), name="codebook"))
    model = keras.Sequential([layer, layers.Dense(1)])
    assert told(lambda: keras_trim.prune_low_magnitude(model, HALF)) == []
    model.compile("sgd", "mse")
    for is_first in (True, False):  # once
        messages = [text for text in told(lambda: fit(model, data)) if "Gradients" not in text]
        assert [("does not tell that it is a matrix" in text) for text in messages] == (
            [True] if is_first else []
        )


class NoVectors(keras_trim.PruningPolicy):
    def allow_pruning(self, layer):
        return not isinstance(layer, Weights)

    def ensure_model_supports_pruning(self, model):
        pass


def test_what_is_meant_is_not_told():
    doubtful = Weights({"codebook": (4, 6)})
    model = model_of(doubtful)
    assert told(lambda: keras_trim.prune_low_magnitude(model, pruning_policy=NoVectors())) == []
    doubtful.get_prunable_weights = list
    assert told(lambda: keras_trim.prune_low_magnitude(model)) == []
    constant = model_of(Weights({"codebook": (4, 6), "kernel": (8, 4)}, trainable_weights=False))
    assert told(lambda: keras_trim.prune_low_magnitude(constant)) == []
    assert len(pruned(constant)) == 1
    keras_trim.prune(constant, 0.5)
    assert values(constant.layers[0].own[1]).all()


def test_frozen_embeddings_are_meant():
    tokens = keras.Input((4,), dtype="int32")
    x = layers.Embedding(10, 8, trainable=False)(tokens)
    model = keras.Model(tokens, layers.Dense(1)(layers.GlobalAveragePooling1D()(x)))
    assert told(lambda: keras_trim.prune_low_magnitude(model)) == []


def test_frozen_layers_of_a_list_are_told_once():
    model = model_of(*(layers.Dense(8) for _ in range(6)))
    for layer in model.layers[:5]:
        layer.trainable = False
    (message,) = told(lambda: keras_trim.prune_low_magnitude(model.layers))
    assert message.startswith("5 weights that are marked for pruning are frozen")


def test_layers_without_weights_have_none_to_leave_out():
    stack = [layers.Dropout(0.4), layers.GaussianNoise(0.1), layers.ReLU(), layers.Flatten()]
    model = model_of(*stack, layers.BatchNormalization())
    assert told(lambda: keras_trim.prune_low_magnitude(model.layers)) == []
    assert len(pruned(model)) == 1
    for layer in stack:
        assert told(lambda layer=layer: keras_trim.prune_low_magnitude(layer)) == []
    (message,) = told(lambda: keras_trim.prune_low_magnitude(model.layers[4:5]))
    assert "Nothing in it can be pruned" in message
    assert "batch_normalization" in message


def test_nothing_is_marked_if_one_layer_of_a_list_is_wrong():
    model = make_mlp()
    with pytest.raises(ValueError, match=r"`block_size` must not be larger.*out/kernel"):
        keras_trim.prune_low_magnitude(model.layers, block_size=(4, 4))
    assert pruned(model) == []


def mobilenet():
    return keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=4)


def resnet():
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same")(image)
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x + y))
    return keras.Model(image, layers.Dense(4)(x))


def transformer():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True)(tokens)
    y = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LayerNormalization()(x + layers.Dropout(0.1)(y))
    x = layers.Bidirectional(layers.LSTM(4))(layers.Dense(8, activation="gelu")(x))
    return keras.Model(tokens, layers.Dense(2)(x))


@pytest.mark.parametrize("pattern", [None, (2, 4)])
@pytest.mark.parametrize("make", [mobilenet, resnet, transformer])
def test_usual_models_raise_no_warning(make, pattern):
    model = make()
    mark = keras_trim.prune_low_magnitude
    assert told(lambda: mark(model, HALF, sparsity_m_by_n=pattern)) == []
    assert told(lambda: mark(model.layers, HALF, sparsity_m_by_n=pattern)) == []
