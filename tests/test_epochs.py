"""Schedules from epochs: batches are counted the way `fit` counts them."""

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp

import keras_trim
from keras_trim import PolynomialDecay
from keras_trim.epochs import count_steps


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return np.zeros((4, 8)), np.zeros((4, 1))


@pytest.mark.parametrize(
    ("data", "batch_size", "steps"),
    [
        (np.zeros((100, 8)), None, 4),  # three of 32, and a rest
        (np.zeros((100, 8)), 50, 2),
        ({"a": np.zeros((64, 8)), "b": np.zeros((64, 2))}, None, 2),
        ([np.zeros((64, 8))], 16, 4),
        (Batches(), None, 7),
        (12, None, 12),
    ],
)
def test_batches_are_counted(data, batch_size, steps):
    assert count_steps(data, batch_size) == steps


@pytest.mark.parametrize("data", [0, np.zeros((0, 8)), (x for x in "ab"), "abc", [1, 2]])
def test_what_cannot_be_counted(data):
    with pytest.raises(ValueError, match="`data` (cannot be counted|must hold at least one batch)"):
        count_steps(data)


def test_a_schedule_of_epochs():
    x = np.zeros((640, 8))  # 20 steps an epoch, 200 in all
    schedule = PolynomialDecay.for_epochs(0.8, epochs=10, data=x)
    assert (schedule.begin_step, schedule.end_step, schedule.frequency) == (0, 100, 3)
    later = PolynomialDecay.for_epochs(0.8, 10, 20, first_epoch=2, ramp=0.75)
    assert (later.begin_step, later.end_step) == (40, 160)
    long = PolynomialDecay.for_epochs(0.9, 90, 5000)
    assert (long.end_step, long.frequency) == (225_000, 100)
    accumulated = PolynomialDecay.for_epochs(0.8, 10, 20, gradient_accumulation_steps=4)
    assert accumulated.end_step == 25


@pytest.mark.parametrize(
    "wrong",
    [
        {"ramp": 0},
        {"ramp": 1.5},
        {"ramp": "half"},
        {"epochs": 2.5},
        {"first_epoch": 10},
        {"first_epoch": 0.5},
        {"gradient_accumulation_steps": 0},
        {"gradient_accumulation_steps": 1.5},
        {"data": np.zeros((64, 8)), "batch_size": 0},
        {"data": np.zeros((64, 8)), "batch_size": 6.4},
    ],
)
def test_wrong_arguments_of_a_schedule_of_epochs(wrong):
    name = list(wrong)[-1]
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        PolynomialDecay.for_epochs(0.8, **{"epochs": 10, "data": 20, **wrong})


def test_the_default_of_optimizers_accumulates_nothing():
    make = keras_trim.PolynomialDecay.for_epochs
    assert repr(make(0.8, 4, 10, gradient_accumulation_steps=None)) == repr(make(0.8, 4, 10))


def test_it_suits_the_run_that_it_is_for(data):
    """No warning, and half of the epochs at the final sparsity."""
    schedule = PolynomialDecay.for_epochs(0.5, epochs=4, data=data[0], batch_size=16)
    model = keras_trim.prune_low_magnitude(make_mlp(), schedule)
    model.compile("sgd", "mse")
    history = fit(model, data, epochs=4)
    assert history.history["sparsity"] == [0.4375, 0.5, 0.5, 0.5]


def test_a_plot_of_it(tmp_path):
    schedule = PolynomialDecay(0.0, 0.8, begin_step=10, end_step=50, frequency=10)
    figure = schedule.plot(num_steps=100, steps_per_epoch=20, reached=[0.5, 0.7, 0.8, 0.8, 0.8])
    figure.savefig(tmp_path / "schedule.png")
    asked, reached = [line for line in figure.axes[0].lines if line.get_label()[0] != "_"]
    assert list(asked.get_xdata()) == [0, 10, 20, 30, 40, 50, 100]
    np.testing.assert_allclose(asked.get_ydata()[[0, 1, -1]], [0, 0, 0.8])
    assert list(reached.get_xdata()) == [20, 40, 60, 80, 100]
    with pytest.raises(ValueError, match="give `num_steps`"):
        keras_trim.ConstantSparsity(0.5).plot()
    with pytest.raises(ValueError, match="must be a `PolynomialDecay`"):
        keras_trim.KeepZeros().plot(10)
