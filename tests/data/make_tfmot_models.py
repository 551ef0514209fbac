"""Makes the folder tfmot_models: a model pruned by TFMOT, before and after `strip_pruning`.

It ran with tensorflow-model-optimization 0.8.1, tf_keras 2.21.0, tensorflow-cpu 2.21.0 and
Python 3.11 (TFMOT needs an environment of its own, with `tf_keras` in place of Keras 3):

    TF_USE_LEGACY_KERAS=1 python tests/data/make_tfmot_models.py

Stripped, it is saved as `.h5` and `.weights.h5`, and `expected.npz` has inputs `x` and
the `predictions` of it; unstripped, as `.h5` and `.keras`. `stripped.keras` is a model that
Keras 3 reads: with `layers.Input`, and without batch normalization.
"""

import os
import pathlib

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras
from tf_keras import layers

FOLDER = pathlib.Path(__file__).with_name("tfmot_models")


def main():
    FOLDER.mkdir(exist_ok=True)
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            layers.Conv2D(4, 3, activation="relu", input_shape=(6, 6, 1)),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=1)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
    pruned.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 6, 6, 1)).astype("float32"), rng.integers(0, 3, 32)
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    pruned.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=callbacks)
    pruned.save(FOLDER / "unstripped.h5", include_optimizer=False)
    pruned.save(FOLDER / "unstripped.keras")
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    stripped.save(FOLDER / "stripped.h5", include_optimizer=False)
    stripped.save_weights(FOLDER / "stripped.weights.h5")
    np.savez(FOLDER / "expected.npz", x=x[:4], predictions=stripped.predict(x[:4], verbose=0))
    save_stripped_keras()


def save_stripped_keras():
    model = tf_keras.Sequential([layers.Input((4,)), layers.Dense(8), layers.Dense(2)])
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=1)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
    pruned.compile("adam", "mse")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    pruned.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0, callbacks=callbacks)
    tfmot.sparsity.keras.strip_pruning(pruned).save(FOLDER / "stripped.keras")


if __name__ == "__main__":
    main()
