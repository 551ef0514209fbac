"""Files written by TFMOT and tf_keras: stripped ones load and can be pruned further."""

import pathlib

import keras
import numpy as np
import pytest

import keras_trim

FOLDER = pathlib.Path(__file__).with_name("data") / "tfmot_models"
EXPECTED = np.load(FOLDER / "expected.npz")


def make_model():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def load(name):
    if name == "stripped.weights.h5":
        model = make_model()
        model.load_weights(FOLDER / name)
        return model
    return keras.models.load_model(FOLDER / name, compile=False)


def zeros(model):
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    return [np.count_nonzero(keras.ops.convert_to_numpy(kernel) == 0) for kernel in kernels]


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize("name", ["stripped.h5", "stripped.weights.h5"])
def test_stripped_files_load_and_are_pruned_further(name):
    model = load(name)
    predictions = model.predict(EXPECTED["x"], verbose=0)
    np.testing.assert_allclose(predictions, EXPECTED["predictions"], rtol=1e-4, atol=1e-6)
    assert zeros(model) == [18, 96]
    schedule = keras_trim.PolynomialDecay(0.5, 0.75, 0, 1, frequency=1)
    keras_trim.prune_low_magnitude(model, schedule)
    model.compile("adam", "sparse_categorical_crossentropy")
    callbacks = [keras_trim.UpdatePruningStep()]
    y = np.arange(4) % 3
    model.fit(EXPECTED["x"], y, epochs=2, verbose=0, callbacks=callbacks)
    assert zeros(model) == [27, 144]


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize("name", ["unstripped.h5", "unstripped.keras"])
def test_unstripped_files_say_to_strip_first(name):
    with pytest.raises((ValueError, TypeError), match="still pruning.*strip_pruning"):
        load(name)


def test_a_stripped_keras_file_loads_and_is_pruned_further():
    """With `Input` and without batch normalization; otherwise Keras 3 cannot read it."""
    model = load("stripped.keras")
    assert zeros(model) == [16, 8]
    keras_trim.prune(model, 0.75)
    assert zeros(model) == [24, 12]
