"""Arguments and examples in forms that users have, though less often than an array."""

import tracemalloc
import warnings

import keras
import numpy as np
import pytest
from conftest import values
from keras import layers

import keras_trim
from keras_trim.one_shot import statistics
from keras_trim.one_shot.replay import Call


def drawn(rng, *shape):
    return rng.standard_normal(shape).astype("float32")


@pytest.mark.parametrize("block_size", [4, "4x4", np.array([4, 4])])
def test_a_block_size_in_any_form(block_size, rng):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(4)])
    keras_trim.prune(
        model, 0.5, block_size, calibration_data=drawn(rng, 32, 8), distribution="sensitivity"
    )
    zero = [(values(layer.kernel) == 0).reshape(2, 4, -1, 4) for layer in model.layers]
    assert sum(each.sum() for each in zero)
    assert all((each.all((1, 3)) == each.any((1, 3))).all() for each in zero)


@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_a_distribution_that_is_an_array(pattern, mlp):
    sparsity = 0.5 if pattern is None else None
    with pytest.raises(ValueError, match=r"`distribution`.*Received: distribution=an array"):
        keras_trim.prune(mlp, sparsity, sparsity_m_by_n=pattern, distribution=np.array([0.5, 0.9]))


class First(layers.Layer):
    """Adds two inputs, of which the first may be missing."""

    def call(self, x, y):
        return y if x is None else x + y

    def compute_output_shape(self, x_shape, y_shape):
        return y_shape


def test_the_first_input_is_not_given(rng):
    a, b = keras.Input((8,), name="a", optional=True), keras.Input((8,), name="b")
    model = keras.Model([a, b], layers.Dense(4)(layers.Dense(6)(First()(a, b))))
    keras_trim.prune(
        model, 0.5, calibration_data=[None, drawn(rng, 32, 8)], distribution="sensitivity"
    )
    assert sum(row.zeros for row in keras_trim.sparsity_report(model).pruned_rows) == 36


def by_step():
    inputs = keras.Input((None, 6))
    return keras.Model(inputs, layers.Dense(3, name="out")(inputs))


def test_sequences_of_several_lengths(rng):
    model, batches = by_step(), [(drawn(rng, 8, length, 6),) for length in (5, 7)]
    result = keras_trim.sensitivity(model, iter(batches), sparsities=(0.5,), method="magnitude")
    x = np.concatenate([batch.reshape(-1, 6) for (batch,) in batches])
    dense = values(model.get_layer("out").kernel)
    keras_trim.prune(model, 0.5)
    sparse = values(model.get_layer("out").kernel)
    error = np.square(x @ dense - x @ sparse).mean() / (x @ dense).var(0).mean()
    np.testing.assert_allclose(result.rows[0].change, error, rtol=1e-4)
    keras_trim.prune(
        model, 0.7, calibration_data=iter(batches), distribution="sensitivity"
    )  # one weight
    assert np.count_nonzero(values(model.get_layer("out").kernel)) == 5


def test_a_metric_of_outputs_that_differ_in_length(rng):
    batches = iter([(drawn(rng, 8, length, 6),) for length in (5, 7)])
    with pytest.raises(ValueError, match=r"one length: pad the examples.*Received.*\(5, 3\)"):
        keras_trim.sensitivity(by_step(), batches, np.zeros(16), lambda y, outputs: 0.0)


class WithLoss(keras.Model):
    """Returns a number besides its outputs."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        y = self.dense(x)
        return {"y": y, "loss": keras.ops.mean(y)}


def test_an_output_without_examples(rng):
    x, model = drawn(rng, 16, 6), WithLoss()
    model(x)
    with pytest.raises(ValueError, match=r"Each output of `model`.*first axis.*Received"):
        keras_trim.prune(model, 0.5, calibration_data=x, distribution="sensitivity")
    keras_trim.prune(model, 0.5, calibration_data=x)


def test_a_pydataset_without_end(mlp, rng):
    class Endless(keras.utils.PyDataset):
        @property
        def num_batches(self):
            return None

        def __getitem__(self, index):
            assert index < 50, "reads on"
            return (drawn(rng, 8, 8),)

    with pytest.raises(ValueError, match="repeats forever: let its `num_batches`.*Received"):
        keras_trim.prune(mlp, 0.5, calibration_data=Endless(workers=1))


class Unnamed(layers.Layer):
    def build(self, input_shape):
        self.table = self.add_weight(shape=(input_shape[-1], 8), name="thing")

    def call(self, x):
        return x @ self.table


def test_what_stays_dense_is_told_once_where_it_is_called(rng):
    model = keras.Sequential([keras.Input((8,)), Unnamed(), layers.Dense(4)])
    x = drawn(rng, 32, 8)
    calls = (
        lambda: keras_trim.sensitivity(model, x, method="magnitude"),
        lambda: keras_trim.prune(model, 0.5, calibration_data=x, distribution="sensitivity"),
    )
    for call in calls:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            call()
        told = [each for each in told if "are not pruned at all" in str(each.message)]
        assert [each.filename for each in told] == [__file__]


def test_statistics_of_steps_with_a_mask(rng):
    """The normalization's channels are the steps, which the mask is about."""
    inputs = keras.Input((5, 6))
    x = layers.Dense(8, name="dense")(layers.Masking()(inputs))
    model = keras.Model(inputs, layers.BatchNormalization(axis=1, name="normalization")(x))
    x = drawn(rng, 16, 5, 6)
    x[:8, 3:] = 0
    keras_trim.prune(model, 0.5, calibration_data=x, method="magnitude", update_statistics=True)
    given = x @ values(model.get_layer("dense").kernel)
    normalization = model.get_layer("normalization")
    np.testing.assert_allclose(values(normalization.moving_mean), given.mean((0, 2)), atol=1e-5)
    np.testing.assert_allclose(values(normalization.moving_variance), given.var((0, 2)), rtol=1e-4)


def test_the_memory_of_statistics(rng, monkeypatch):
    """A large batch, such as a generator may give, is copied to float64 in parts."""
    monkeypatch.setattr(statistics, "SLICE", 2**18)
    layer = layers.BatchNormalization()
    layer.build((None, 64, 64, 4))
    x = drawn(rng, 64, 64, 64, 4)
    mask = rng.random(x.shape[:3]) < 0.5
    call = Call(layer, keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(mask))
    found = statistics.Statistics(layer)
    tracemalloc.start()
    found.add([call])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes
    for result, expected in zip(found.result(), (x[mask].mean(0), x[mask].var(0)), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
