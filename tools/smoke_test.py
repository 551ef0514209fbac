"""Trains, prunes, saves and loads with the installed package, to be run outside of the repository.

    python tools/smoke_test.py

Needs a backend and the extra `storage`. Writes `model.keras` and `model.ktrim` where it is run.
"""

import importlib.metadata
import pathlib

import keras
import numpy as np

import keras_trim


def main():
    folder = pathlib.Path(keras_trim.__file__).parent
    assert (folder / "storage" / "dictionary.txt").is_file(), "the wheel lacks package data"
    assert (folder.parent / "keras_trim_cli" / "html" / "report.html.jinja").is_file()
    assert importlib.metadata.version("keras-trim") == keras_trim.__version__

    random = np.random.default_rng(0)
    x, y = random.normal(size=(256, 20)).astype("float32"), random.integers(0, 4, 256)
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(32), keras.layers.Dense(4)])
    schedule = keras_trim.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=12, frequency=4)
    keras_trim.prune_low_magnitude(model, schedule)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=2, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    keras_trim.strip_pruning(model)
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    assert np.count_nonzero(kernel == 0) == round(0.8 * kernel.size)

    model.save("model.keras")
    keras_trim.save(model, "model.ktrim")
    loaded = keras_trim.load("model.ktrim")
    for mine, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    print(f"keras-trim {keras_trim.__version__} works on {keras.backend.backend()}: {folder}")


if __name__ == "__main__":
    main()
