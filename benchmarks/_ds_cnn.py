"""Arm's DS-CNN-L for keyword spotting as a Keras model, with the weights that Arm trained.

Zhang, Suda, Lai and Chandra, "Hello Edge: Keyword Spotting on Microcontrollers",
https://arxiv.org/abs/1711.07128. The weights are from ARM-software/ML-KWS-for-MCU (Apache-2.0).
"""

import pathlib

import keras
import numpy as np

LABELS = [
    "silence",
    "unknown",
    "yes",
    "no",
    "up",
    "down",
    "left",
    "right",
    "on",
    "off",
    "stop",
    "go",
]  # in the order of the outputs
INPUT_SHAPE = (49, 10, 1)
_CHANNELS = 276
_BLOCKS = 5


def build(keras=keras, channels=_CHANNELS):
    """Builds the network: 49x10 MFCC to a softmax over 12 keywords. Works in Keras 2, for TFMOT."""
    layers = keras.layers

    def normalize(x, name):
        name = name.replace("/", "_")
        x = layers.BatchNormalization(epsilon=1e-3, scale=False, name=name)(x)
        return layers.ReLU()(x)

    x = inputs = keras.Input(INPUT_SHAPE, name="mfcc")
    x = layers.Conv2D(channels, (10, 4), strides=(2, 1), padding="same", name="conv_1")(x)
    x = normalize(x, "conv_1/batch_norm")
    for i in range(1, _BLOCKS + 1):
        block = f"conv_ds_{i}"
        strides = 2 if i == 1 else 1
        x = layers.DepthwiseConv2D(
            3, strides=strides, padding="same", name=f"{block}_depthwise_conv"
        )(x)
        x = normalize(x, f"{block}/dw_batch_norm")
        x = layers.Conv2D(channels, 1, name=f"{block}_pointwise_conv")(x)
        x = normalize(x, f"{block}/pw_batch_norm")
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(len(LABELS), activation="softmax", name="fc1")(x)
    return keras.Model(inputs, outputs, name="ds_cnn_l")


def load(folder):
    """Builds the network with Arm's weights.

    Args:
        folder: Path of the folder with `ds_cnn_l.npz`, whose arrays have the names of Arm's frozen
            graph.
    """
    model = build()
    arrays = np.load(pathlib.Path(folder, "ds_cnn_l.npz"))

    def give(layer, group, names):
        values = [arrays[f"MobileNet/{group}/{name}"] for name in names]
        model.get_layer(layer).set_weights(values)

    statistics = ("beta", "moving_mean", "moving_variance")
    give("conv_1", "conv_1", ("weights", "biases"))
    give("conv_1_batch_norm", "conv_1/batch_norm", statistics)
    for i in range(1, _BLOCKS + 1):
        block = f"conv_ds_{i}"
        depthwise = ("depthwise_weights", "biases")
        give(f"{block}_depthwise_conv", f"{block}/depthwise_conv", depthwise)
        give(f"{block}_dw_batch_norm", f"{block}/dw_batch_norm", statistics)
        give(f"{block}_pointwise_conv", f"{block}/pointwise_conv", ("weights", "biases"))
        give(f"{block}_pw_batch_norm", f"{block}/pw_batch_norm", statistics)
    give("fc1", "fc1", ("weights", "biases"))
    return model


def accuracy(model, x, y):
    """Returns the top-1 accuracy, a float from 0 to 1."""
    return float(np.mean(model.predict(x, batch_size=256, verbose=0).argmax(-1) == y))
