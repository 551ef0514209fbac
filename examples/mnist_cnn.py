"""Pruning while training with `fit`: the CNN of TFMOT's pruning guide, on MNIST.

    KERAS_BACKEND=jax python examples/mnist_cnn.py    # or torch; TensorFlow without it
    python examples/mnist_cnn.py --data mnist.npz    # a local copy instead of a download

Only two lines are about pruning: `prune_low_magnitude` before `compile`, and the callback in `fit`.
"""

import argparse
import math

import keras
import numpy as np
from keras import layers

import keras_trim

BATCH_SIZE = 128


def load_mnist(path, limit):
    if path:
        with np.load(path) as data:
            train, test = (data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])
    else:
        train, test = keras.datasets.mnist.load_data()
    return [(x[:limit].astype("float32") / 255, y[:limit]) for x, y in (train, test)]


def build_model():
    return keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.Reshape((28, 28, 1)),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def compile_model(model):
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="path of mnist.npz (default: download it)")
    parser.add_argument("--epochs", type=int, default=2, help="of dense training, then of pruning")
    parser.add_argument("--limit", type=int, help="use only the first images")
    args = parser.parse_args(argv)

    keras.utils.set_random_seed(0)
    (x_train, y_train), (x_test, y_test) = load_mnist(args.data, args.limit)
    model = build_model()
    compile_model(model)
    model.fit(x_train, y_train, batch_size=BATCH_SIZE, epochs=args.epochs)
    dense_accuracy = model.evaluate(x_test, y_test, verbose=0)[1]

    steps = args.epochs * math.ceil(len(x_train) / BATCH_SIZE)
    schedule = keras_trim.PolynomialDecay(
        initial_sparsity=0.5, final_sparsity=0.8, begin_step=0, end_step=steps // 2
    )
    keras_trim.prune_low_magnitude(model, schedule)
    compile_model(model)  # compile again, so that the optimizer's steps count from 0
    model.fit(
        x_train,
        y_train,
        batch_size=BATCH_SIZE,
        epochs=args.epochs,
        callbacks=[keras_trim.UpdatePruningStep()],
    )
    print(keras_trim.sparsity_report(model))
    keras_trim.strip_pruning(model)  # now it is a plain Keras model
    pruned_accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
    print(f"test accuracy: dense {dense_accuracy:.2%}, pruned {pruned_accuracy:.2%}")


if __name__ == "__main__":
    main()
