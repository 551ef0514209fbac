"""Trains and prunes a small network for MNIST, with keras-trim or TFMOT, whose names are the same.

The environment variable `LIBRARY` selects the library, because the interpreters differ as well.
"""

import os
import warnings

import numpy as np

from benchmarks._common import serve

if os.environ["LIBRARY"] == "TFMOT":
    import tf_keras as keras
    from tensorflow_model_optimization.sparsity import keras as sparsity
else:
    import keras

    from keras_trim.sparsity import keras as sparsity

BATCH_SIZE = 128
_data = {}


def load_data(path):
    """Reads an `mnist.npz` and returns the number of training examples."""
    with np.load(path) as arrays:
        for part in ("train", "test"):
            _data[part] = (
                arrays[f"x_{part}"].astype("float32")[..., None] / 255,
                arrays[f"y_{part}"].astype("int64"),
            )
    return len(_data["train"][0])


def _build(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.layers.InputLayer((28, 28, 1)),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def _compile(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])


def _fit(model, seed, epochs, callbacks=()):
    """Runs all epochs in one `fit`, in an order that does not depend on the library."""
    x, y = _data["train"]
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(x)) for _ in range(epochs)])
    # One Keras epoch for all epochs: Keras would start every epoch in the same order.
    model.fit(
        x[order],
        y[order],
        batch_size=BATCH_SIZE,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def _accuracy(model):
    return float(model.evaluate(*_data["test"], batch_size=1000, verbose=0)[1])


def pretrain(seed, epochs, path):
    """Trains a dense network from scratch, saves its weights and returns its accuracy."""
    model = _build(seed)
    _compile(model)
    _fit(model, seed, epochs)
    np.savez(path, *model.get_weights())
    return _accuracy(model)


def train_on(seed, epochs, path, target=None, schedule=None):
    """Continues training from saved weights, dense or pruned.

    Args:
        seed: Integer. The seed for the order of the examples.
        epochs: Integer.
        path: String. File written by `pretrain`.
        target: Float (sparsity), `"2:4"`, or `None` for dense.
        schedule: Dict of arguments of `PolynomialDecay`, without the sparsities.

    Returns:
        Dict: `accuracy`, and `sparsity` of the kernels.
    """
    model = _build(seed)
    with np.load(path) as arrays:
        model.set_weights([arrays[name] for name in arrays.files])
    callbacks = []
    if target is not None:
        is_n_m = target == "2:4"
        decay = sparsity.PolynomialDecay(0.0, 0.5 if is_n_m else target, **schedule)
        pattern = {"sparsity_m_by_n": (2, 4)} if is_n_m else {}
        model = sparsity.prune_low_magnitude(model, decay, **pattern)
        callbacks.append(sparsity.UpdatePruningStep())
    _compile(model)
    _fit(model, seed + 1000, epochs, callbacks)
    accuracy = _accuracy(model)
    if target is not None:
        model = sparsity.strip_pruning(model)
    kernels = [weight for weight in model.get_weights() if weight.ndim >= 2]
    zeros = sum(int(np.count_nonzero(kernel == 0)) for kernel in kernels)
    return {"accuracy": accuracy, "sparsity": zeros / sum(kernel.size for kernel in kernels)}


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Training ended|The pruning schedule")
    serve(load_data, pretrain, train_on)
