import keras
import numpy as np
import pytest
from keras import layers

import keras_trim
from keras_trim.inference import weight_times


def test_times_of_the_engine_fit_a_budget():
    model = keras.Sequential(
        [
            keras.Input((12, 12, 8)),
            layers.Conv2D(16, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Reshape((10, 160)),
            layers.LSTM(16, name="lstm"),
            layers.Dense(4, name="out"),
        ]
    )
    before = model.get_weights()
    times = weight_times(model, sparsities=(0, 0.9))
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    lstm = "lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel"
    assert set(times) == {"conv/kernel", *lstm, "out/kernel"}
    for own in times.values():
        assert set(own) == {0.0, 0.9}
        assert min(own.values()) > 0
    # A layer's weights share its time by size: 160 and 16 rows.
    assert times[lstm[0]][0.9] == pytest.approx(10 * times[lstm[1]][0.9])
    x = np.random.default_rng(0).standard_normal((16, 12, 12, 8)).astype("float32")
    table = keras_trim.sensitivity(model, x, sparsities=(0.5, 0.9), method="magnitude")
    total = sum(own[0] for own in times.values())
    allocation = keras_trim.budget(table, milliseconds=total, times=times)
    assert set(allocation.sparsities.values()) == {0.0}


def test_dense_weights_must_be_measured():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    with pytest.raises(ValueError, match=r"must have 0.*Received: sparsities=\[0.5\]"):
        weight_times(model, sparsities=(0.5,))
