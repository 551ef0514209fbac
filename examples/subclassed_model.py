"""A subclassed model with a custom layer that names the weights to prune.

    KERAS_BACKEND=jax python examples/subclassed_model.py    # or torch; TensorFlow without it
    python examples/subclassed_model.py --data mnist.npz    # a local copy instead of a download

Kernels and embedding tables are recognized by their names. `Maxout` uses another name for its
weight, so it has a method `get_prunable_weights`.
"""

import argparse
import math

import keras
import numpy as np
from keras import layers, ops

import keras_trim

BATCH_SIZE = 128


class Maxout(layers.Layer):
    """The maximum of several linear maps, per unit (https://arxiv.org/abs/1302.4389)."""

    def __init__(self, units, num_pieces):
        super().__init__()
        self.units = units
        self.num_pieces = num_pieces

    def build(self, input_shape):
        self.pieces = self.add_weight(
            shape=(self.num_pieces, input_shape[-1], self.units), name="pieces"
        )
        self.bias = self.add_weight(shape=(self.num_pieces, self.units), name="bias")

    def call(self, inputs):
        outputs = ops.einsum("bi,piu->bpu", inputs, self.pieces) + self.bias
        return ops.max(outputs, axis=1)

    def get_prunable_weights(self):
        return [self.pieces]


class Classifier(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten = layers.Flatten()
        self.maxout = Maxout(64, num_pieces=3)
        self.logits = layers.Dense(10)

    def call(self, images):
        return self.logits(self.maxout(self.flatten(images)))


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
    steps = args.epochs * math.ceil(len(x_train) / BATCH_SIZE)
    schedule = keras_trim.PolynomialDecay(
        initial_sparsity=0.0, final_sparsity=0.8, begin_step=steps // 3, end_step=steps * 2 // 3
    )
    # The model has no weights yet. They are marked when `fit` creates them.
    model = keras_trim.prune_low_magnitude(Classifier(), schedule)
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        x_train,
        y_train,
        batch_size=BATCH_SIZE,
        epochs=args.epochs,
        callbacks=[keras_trim.UpdatePruningStep()],
    )
    print(keras_trim.sparsity_report(model))
    keras_trim.strip_pruning(model)
    print(f"test accuracy: pruned {model.evaluate(x_test, y_test, verbose=0)[1]:.2%}")


if __name__ == "__main__":
    main()
