"""Pruning in a custom training loop on TensorFlow: `tf.function` and a gradient tape.

    python examples/custom_loop_tensorflow.py
    python examples/custom_loop_tensorflow.py --data mnist.npz    # a local copy, no download

One line differs from a loop without pruning: `PruningOptimizer` wraps the optimizer.
"""

import argparse
import math
import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import keras_trim

BATCH_SIZE = 128


def load_mnist(path, limit):
    if path:
        with np.load(path) as data:
            train, test = (data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])
    else:
        train, test = keras.datasets.mnist.load_data()
    return [(x[:limit].astype("float32") / 255, y[:limit]) for x, y in (train, test)]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="path of mnist.npz (default: download it)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=int, help="use only the first images")
    args = parser.parse_args(argv)

    keras.utils.set_random_seed(0)
    (x_train, y_train), (x_test, y_test) = load_mnist(args.data, args.limit)
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    steps = args.epochs * math.ceil(len(x_train) / BATCH_SIZE)
    schedule = keras_trim.PolynomialDecay(
        initial_sparsity=0.0, final_sparsity=0.8, begin_step=steps // 3, end_step=steps * 2 // 3
    )
    keras_trim.prune_low_magnitude(model, schedule)
    optimizer = keras_trim.PruningOptimizer(keras.optimizers.Adam())
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    batches = tf.data.Dataset.from_tensor_slices((x_train, y_train))
    batches = batches.shuffle(len(x_train)).batch(BATCH_SIZE)
    for epoch in range(args.epochs):
        losses = [train_step(x, y) for x, y in batches]
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")

    print(keras_trim.sparsity_report(model))
    keras_trim.strip_pruning(model)
    classes = ops.convert_to_numpy(model(x_test)).argmax(axis=1)
    print(f"test accuracy: pruned {np.mean(classes == y_test):.2%}")


if __name__ == "__main__":
    main()
