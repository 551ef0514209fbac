"""Pruning in a custom training loop on PyTorch: `backward`, then the optimizer's `apply`.

    python examples/custom_loop_torch.py
    python examples/custom_loop_torch.py --data mnist.npz    # a local copy instead of a download

One line differs from a loop without pruning: `PruningOptimizer` wraps the optimizer.
"""

import argparse
import math
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
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

    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(x_train), torch.from_numpy(y_train)),
        batch_size=BATCH_SIZE,
        shuffle=True,
    )
    for epoch in range(args.epochs):
        losses = []
        for x, y in batches:
            loss = loss_function(y, model(x, training=True))
            model.zero_grad()
            loss.backward()
            gradients = [variable.value.grad for variable in model.trainable_variables]
            with torch.no_grad():
                optimizer.apply(gradients, model.trainable_variables)
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")

    print(keras_trim.sparsity_report(model))
    keras_trim.strip_pruning(model)
    classes = ops.convert_to_numpy(model(x_test)).argmax(axis=1)
    print(f"test accuracy: pruned {np.mean(classes == y_test):.2%}")


if __name__ == "__main__":
    main()
