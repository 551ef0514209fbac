"""Small networks that benchmarks train themselves: CIFAR-10 images, movie reviews.

Weights are cached in a folder of the user, so each network is trained only once.
"""

import pathlib

import keras
import numpy as np
from keras import layers

CACHE = pathlib.Path.home() / ".cache" / "keras_trim_benchmarks"


def cifar_cnn():
    """Eight 3x3 convolutions with batch normalization, 0.6 million weights."""
    x = inputs = keras.Input((32, 32, 3))
    for i, (filters, strides) in enumerate(
        [(32, 1), (32, 2), (64, 1), (64, 2), (128, 1), (128, 2), (128, 1), (128, 1)], 1
    ):
        x = _convolution(x, filters, strides, f"conv_{i}")
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="cifar_cnn")


def cifar_resnet(width=16):
    """ResNet-20 for CIFAR-10 (He et al., https://arxiv.org/abs/1512.03385, section 4.2)."""
    x = inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(_convolution(x, width, 1, "stem"))
    for stage in range(3):
        for block in range(3):
            filters, name = width * 2**stage, f"stage_{stage + 1}_{block + 1}"
            strides = 2 if stage and not block else 1
            shortcut = x
            if strides == 2:
                shortcut = _convolution(x, filters, 2, f"{name}_shortcut", 1)
            x = layers.ReLU()(_convolution(x, filters, strides, f"{name}_a"))
            x = layers.ReLU()(layers.Add()([_convolution(x, filters, 1, f"{name}_b"), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="cifar_resnet")


def _convolution(x, filters, strides, name, window=3):
    x = layers.Conv2D(filters, window, strides=strides, padding="same", use_bias=False, name=name)(
        x
    )
    return layers.BatchNormalization(name=f"{name}_bn")(x)


VOCABULARY, LENGTH = 8192, 48


def review_transformer(width=96, blocks=3, heads=4):
    """A transformer encoder over words, with one logit for positive reviews."""
    words = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, width, name="words")(words)
    places = layers.Embedding(LENGTH, width, name="places")(
        keras.ops.zeros_like(words) + np.arange(LENGTH, dtype="int32")
    )
    x = layers.Dropout(0.3)(x + places)
    for i in range(1, blocks + 1):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(heads, width // heads, dropout=0.2, name=f"attention_{i}")(
            y, y
        )
        x = x + y
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, activation="gelu", name=f"expand_{i}")(y)
        x = x + layers.Dropout(0.3)(layers.Dense(width, name=f"project_{i}")(y))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(words, layers.Dense(1, name="logits")(x), name="review_transformer")


def augment(x, rng):
    """Shifts images by up to four pixels and mirrors half of them."""
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    moved = np.empty_like(x)
    places = rng.integers(0, 9, (len(x), 2))
    mirrored = rng.random(len(x)) < 0.5
    for i, (top, left) in enumerate(places):
        picture = padded[i, top : top + 32, left : left + 32]
        moved[i] = picture[:, ::-1] if mirrored[i] else picture
    return moved


class Augmented(keras.utils.PyDataset):
    """Batches of augmented images in [-1, 1], in a new order each epoch."""

    def __init__(self, x, y, batch_size=128, seed=0):
        super().__init__()
        self._x, self._y, self._batch_size = x, y, batch_size
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return len(self._x) // self._batch_size

    def on_epoch_end(self):
        self._order = self._rng.permutation(len(self._x))

    def __getitem__(self, i):
        chosen = self._order[i * self._batch_size : (i + 1) * self._batch_size]
        return scale(augment(self._x[chosen], self._rng)), self._y[chosen]


def scale(x):
    """Converts uint8 images to float32 in [-1, 1]."""
    return x.astype("float32") / 127.5 - 1


def train(model, data, epochs, learning_rate=2e-3, callbacks=()):
    """Trains an image classifier with AdamW and cosine decay of the learning rate to 0."""
    steps = len(data) * epochs
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data, epochs=epochs, verbose=2, callbacks=list(callbacks))
