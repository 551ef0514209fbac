"""Makes the folder old_checkpoints: files that versions before 0.2 saved during pruning.

It ran with commit bf96c70, Keras 3.15.1 and JAX:

    KERAS_BACKEND=jax python tests/data/make_old_checkpoints.py

The model is in the middle of its schedule and has Adam's momenta. It is saved as `.keras`, as
`.weights.h5` (with the optimizer, as Keras saves it) and as `.ktrim` with `include_optimizer`.
`expected.npz` has each weight and mask in order, the step, and the weights after one more epoch
(`later_i`).
"""

import pathlib

import keras
import numpy as np

import keras_trim

FOLDER = pathlib.Path(__file__).with_name("old_checkpoints")


def make_model():
    model = keras.Sequential(
        [
            keras.Input((8,), name="features"),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(1, name="out"),
        ],
        name="mlp",
    )
    schedule = keras_trim.PolynomialDecay(0.25, 0.75, 1, 14, frequency=3)
    keras_trim.prune_low_magnitude(model, schedule)
    model.compile(keras.optimizers.Adam(0.01, name="adam"), "mse")
    return model


def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 8)).astype("float32")
    return x, (x @ rng.standard_normal((8, 1))).astype("float32")


def fit(model, epochs):
    callbacks = [keras_trim.UpdatePruningStep()]
    arguments = {"epochs": epochs, "batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(*data(), callbacks=callbacks, **arguments)


def main():
    FOLDER.mkdir(exist_ok=True)
    keras.utils.set_random_seed(0)
    model = make_model()
    fit(model, epochs=2)
    model.save(FOLDER / "model.keras")
    model.save_weights(FOLDER / "model.weights.h5")
    keras_trim.save(model, FOLDER / "model.ktrim", include_optimizer=True)
    arrays = {f"weight_{i}": w for i, w in enumerate(model.get_weights())}
    for i, weight in enumerate(model.optimizer.pruned_weights):
        arrays[f"mask_{i}"] = keras.ops.convert_to_numpy(weight.mask)
    arrays["step"] = int(model.optimizer.iterations)
    fit(model, epochs=2)
    arrays |= {f"later_{i}": w for i, w in enumerate(model.get_weights())}
    np.savez(FOLDER / "expected.npz", **arrays)


if __name__ == "__main__":
    main()
