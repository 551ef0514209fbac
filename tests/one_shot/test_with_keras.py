"""One-shot pruning beside what Keras has: LoRA, quantization, distillation, moving averages."""

import keras
import numpy as np
import pytest
from conftest import values
from keras import layers

import keras_trim


@pytest.fixture
def pruned(rng):
    x = rng.standard_normal((64, 16)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(32, activation="relu", name="first"),
            layers.Dense(8, name="out"),
        ]
    )
    return keras_trim.prune(model, 0.75, calibration_data=x), x


# Keras tells of each layer that it does not quantize.
quantizes = pytest.mark.filterwarnings("ignore:.*quantize")


@quantizes
def test_int8_keeps_the_zeros(pruned, tmp_path):
    model, x = pruned
    zero = [values(layer.kernel) == 0 for layer in model.layers]
    model.quantize("int8")
    for layer, mask in zip(model.layers, zero, strict=True):
        assert not values(layer.kernel)[mask].any()
    rows = [row for row in keras_trim.sparsity_report(model).rows if row.path.endswith("/kernel")]
    assert [row.zeros >= mask.sum() for row, mask in zip(rows, zero, strict=True)] == [True, True]
    expected = values(model(x))
    keras_trim.save(model, tmp_path / "model.ktrim")
    np.testing.assert_array_equal(values(keras_trim.load(tmp_path / "model.ktrim")(x)), expected)


@quantizes
def test_int4_keeps_the_zeros(pruned):
    """Per channel. In groups, Keras stores a zero as the group's zero point."""
    model, _ = pruned
    zero = values(model.layers[0].kernel) == 0
    model.quantize(config=keras.quantizers.Int4QuantizationConfig(block_size=-1))
    assert not values(model.layers[0].kernel)[zero].any()


@pytest.mark.filterwarnings("ignore:1 weight was pruned")  # of the layer without LoRA
def test_lora_on_a_pruned_base(pruned):
    model, x = pruned
    zero = values(model.layers[0].kernel) == 0
    model.layers[0].enable_lora(2)
    model.compile("adam", "mse")
    model.fit(x, x[:, :8], verbose=0)
    np.testing.assert_array_equal(values(model.layers[0]._kernel) == 0, zero)


def test_a_base_with_lora_is_pruned(rng):
    x = rng.standard_normal((64, 16)).astype("float32")
    model = keras.Sequential([keras.Input((16,)), layers.Dense(32)])
    model.layers[0].enable_lora(2)
    before = values(model(x))
    keras_trim.prune(model, 0.25, calibration_data=x)
    assert (values(model.layers[0]._kernel) == 0).sum() == 128
    assert np.mean((values(model(x)) - before) ** 2) < 0.1 * np.mean(before**2)


class Distiller(keras.Model):
    """Trains a student on what a teacher gives; as documented in docs/one_shot.md."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher
        teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((self.teacher(x, training=False) - y_pred) ** 2)


def test_distillation_without_reviving_a_weight(pruned):
    student, x = pruned
    teacher = keras.models.clone_model(student)
    teacher.set_weights([w + 0.1 for w in student.get_weights()])
    zero = [values(layer.kernel) == 0 for layer in student.layers]
    keras_trim.prune_low_magnitude(student, keras_trim.KeepZeros())
    model = Distiller(student, teacher)
    model.compile(keras.optimizers.Adam(1e-2))
    before = np.mean((values(teacher(x)) - values(student(x))) ** 2)
    model.fit(x, x, epochs=20, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    after = np.mean((values(teacher(x)) - values(student(x))) ** 2)
    assert after < 0.5 * before
    for layer, mask in zip(student.layers, zero, strict=True):
        np.testing.assert_array_equal(values(layer.kernel) == 0, mask)


def test_moving_averages_keep_the_zeros(pruned):
    model, x = pruned
    zero = [values(layer.kernel) == 0 for layer in model.layers]
    keras_trim.prune_low_magnitude(model, keras_trim.KeepZeros())
    model.compile(keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=1), "mse")
    model.fit(x, x[:, :8], epochs=2, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    for layer, mask in zip(model.layers, zero, strict=True):
        np.testing.assert_array_equal(values(layer.kernel) == 0, mask)
