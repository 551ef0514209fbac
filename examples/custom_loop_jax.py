"""Pruning in a custom training loop on JAX: a compiled step of `stateless` functions.

    python examples/custom_loop_jax.py
    python examples/custom_loop_jax.py --data mnist.npz    # a local copy instead of a download

`PruningOptimizer.stateless_apply` takes and returns the masks among the optimizer's variables, so
the whole step is one pure function.
"""

import argparse
import math
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
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

    def compute_loss(trainable, non_trainable, x, y):
        logits, non_trainable = model.stateless_call(trainable, non_trainable, x, training=True)
        return loss_function(y, logits), non_trainable

    @jax.jit
    def train_step(trainable, non_trainable, optimizer_state, x, y):
        gradient_function = jax.value_and_grad(compute_loss, has_aux=True)
        (loss, non_trainable), gradients = gradient_function(trainable, non_trainable, x, y)
        trainable, optimizer_state = optimizer.stateless_apply(
            optimizer_state, gradients, trainable
        )
        return loss, (trainable, non_trainable, optimizer_state)

    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = tuple([variable.value for variable in group] for group in variables)
    for epoch in range(args.epochs):
        losses = []
        order = np.random.permutation(len(x_train))
        for batch in np.split(order, range(BATCH_SIZE, len(order), BATCH_SIZE)):
            loss, state = train_step(*state, x_train[batch], y_train[batch])
            losses.append(loss)
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    # Copy the values back into the model and the optimizer, so both can be used and saved.
    for group, values in zip(variables, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)

    print(keras_trim.sparsity_report(model))
    keras_trim.strip_pruning(model)
    classes = ops.convert_to_numpy(model(x_test)).argmax(axis=1)
    print(f"test accuracy: pruned {np.mean(classes == y_test):.2%}")


if __name__ == "__main__":
    main()
