"""Writes `keras_trim/storage/dictionary.txt`, with which `.ktrim` files compress texts.

    python tools/make_storage_dictionary.py

The dictionary is part of the format. A released dictionary must never change; a better one needs a
new version of the format. It contains the texts of a few arbitrary small models, with each common
layer once or twice.
"""

import json
import os
import pathlib
import tempfile
import zlib

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from keras import layers

import keras_trim
from keras_trim.storage import streams
from keras_trim.storage.header import dump_header
from keras_trim.storage.reader import Reader

MOST_OF_A_CLASS = 2


def image_model():
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(16, 3, strides=2, use_bias=False)(x)
    x = shortcut = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    x = layers.Conv2D(16, 1, padding="same")(x)
    x = layers.Add()([x, shortcut])
    x = layers.SeparableConv2D(32, 3, activation="relu")(x)
    x = layers.Multiply()([x, x])
    x = layers.AveragePooling2D(2)(x)
    x = layers.Concatenate()([x, x])
    x = layers.UpSampling2D(2)(x)
    x = layers.GlobalMaxPooling2D(keepdims=True)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Reshape((8, 8))(x)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.2)(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    return model


def text_model():
    stack = [
        keras.Input((100,)),
        layers.Embedding(1000, 64),
        layers.SpatialDropout1D(0.1),
        layers.Conv1D(64, 5, activation="relu"),
        layers.MaxPooling1D(2),
        layers.Bidirectional(layers.LSTM(32, return_sequences=True)),
        layers.GRU(32),
        layers.LayerNormalization(),
        layers.Dense(1, activation="sigmoid"),
    ]
    model = keras.Sequential(stack)
    model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
    return model


def table_model():
    stack = [
        keras.Input((64,)),
        layers.Normalization(),
        layers.Dense(128, activation="relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Dense(1),
    ]
    model = keras.Sequential(stack)
    model.compile("adamw", "mse", metrics=["mae"])
    return model


def digits_model():
    stack = [
        keras.Input((28, 28, 1)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(stack)
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def texts(model):
    """Returns the structure of a model and the header of its file, as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.ktrim"
        keras_trim.save(keras_trim.prune(model, 0.8), path)
        with Reader(path) as reader:
            texts = reader.read_file("config.json"), dump_header(reader.header)
    return [json.loads(text) for text in texts]


def main():
    keras.utils.set_random_seed(0)
    # Start from an empty dictionary, so that the current one has no effect.
    streams.DICTIONARY.write_bytes(b"")
    streams.DICTIONARY_CRC32 = zlib.crc32(b"")
    configs, headers = zip(
        *(texts(build()) for build in (image_model, text_model, table_model, digits_model)),
        strict=True,
    )
    seen = {}
    for config in reversed(configs):
        kept = []
        for layer in config["config"]["layers"]:
            seen[layer["class_name"]] = seen.get(layer["class_name"], 0) + 1
            if seen[layer["class_name"]] <= MOST_OF_A_CLASS:
                kept.append(layer)
        config["config"]["layers"] = kept
    for header in headers:
        header["arrays"] = header["arrays"][:8]
    # The compressor refers most cheaply to what is nearest to the end.
    documents = (*configs[:3], *headers, configs[3])
    text = "".join(json.dumps(document, separators=(",", ":")) for document in documents)
    streams.DICTIONARY.write_bytes(text.encode())
    crc32 = zlib.crc32(text.encode())
    print(f"{streams.DICTIONARY}: {len(text):,} bytes, DICTIONARY_CRC32 = 0x{crc32:08X}")


if __name__ == "__main__":
    main()
