import json

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp
from keras import ops

from keras_trim import ConstantSparsity, PolynomialDecay, PruningSchedule, prune_low_magnitude


def fires(schedule, last):
    return [step for step in range(last + 1) if schedule(step)[0]]


def test_constant_fires_on_its_grid_and_at_its_end():
    assert fires(ConstantSparsity(0.5, 2, 9, frequency=3), 20) == [2, 5, 8, 9]
    assert fires(ConstantSparsity(0.5, 0, frequency=4), 9) == [0, 4, 8]
    assert ConstantSparsity(0.5, 0)(7)[1] == 0.5


def test_polynomial_decay_by_hand():
    schedule = PolynomialDecay(0.2, 0.8, 10, 20, power=3, frequency=5)
    assert fires(schedule, 30) == [10, 15, 20]
    assert schedule(10)[1] == pytest.approx(0.2)
    assert schedule(15)[1] == pytest.approx(0.8 - 0.6 * 0.5**3)
    assert schedule(20)[1] == 0.8  # exactly
    assert schedule(99)[1] == 0.8


def test_an_end_off_the_grid_still_reaches_the_final_sparsity():
    schedule = PolynomialDecay(0.0, 0.9, 0, 250, frequency=100)
    assert fires(schedule, 300) == [0, 100, 200, 250]
    assert schedule.num_updates == 4
    assert [schedule.update_step(i) for i in range(4)] == [0, 100, 200, 250]


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantSparsity(0.5, 3, 20, frequency=4),
        ConstantSparsity(0.3, 0),
        PolynomialDecay(0.1, 0.9, 2, 17, power=2, frequency=4),
        PolynomialDecay(0.5, 0.5, 5, 5, frequency=1),
    ],
)
def test_tensors_and_integers_agree(schedule):
    for step in range(30):
        due, sparsity = schedule(step)
        due_tensor, sparsity_tensor = schedule(ops.convert_to_tensor(step, "int32"))
        assert bool(due_tensor) == due
        assert float(sparsity_tensor) == pytest.approx(sparsity, abs=1e-6)
        index = schedule.update_index(step)
        assert int(schedule.update_index(ops.convert_to_tensor(step, "int32"))) == index
        if due:
            assert schedule.sparsity_at(schedule.update_step(index)) == sparsity


@pytest.mark.parametrize(
    "schedule", [ConstantSparsity(0.5, 3, 20, 4), PolynomialDecay(0.1, 0.9, 2, 17, frequency=4)]
)
def test_next_update(schedule):
    due = fires(schedule, 40)
    for step in range(40):
        assert schedule.next_update(step) == next((s for s in due if s > step), None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSparsity(1.0, 0), r"\[0, 1\).*Received: target_sparsity=1.0"),
        (lambda: ConstantSparsity(80, 0), r"so 0.8 for 80 %"),
        (lambda: ConstantSparsity(-0.1, 0), r"\[0, 1\)"),
        (lambda: ConstantSparsity(float("nan"), 0), r"\[0, 1\)"),
        (lambda: ConstantSparsity("0.5", 0), "must be a number"),
        (lambda: ConstantSparsity(0.5, 10, 5), "must not come before.*begin_step=10, end_step=5"),
        (lambda: ConstantSparsity(0.5, -1), "at least 0"),
        (lambda: ConstantSparsity(0.5, 0, frequency=0), "`frequency` must be at least 1"),
        (lambda: ConstantSparsity(0.5, 2**31), r"`begin_step` must be below 2\*\*31"),
        (lambda: ConstantSparsity(0.5, 0, frequency=2**31), r"`frequency` must be below"),
        (lambda: PolynomialDecay(0.0, 0.5, 0, 10**10), "end_step=10000000000"),
        (lambda: ConstantSparsity(0.5, 0.0), r"integer.*`int\(...\)`.*begin_step=0.0"),
        (lambda: PolynomialDecay(0.0, 0.8, 0, np.ceil(9.5)), "end_step=.*10.0"),
        (lambda: PolynomialDecay(0.0, 0.8, 0, -1), "cannot be -1"),
        (lambda: PolynomialDecay(0.0, 1.2, 0, 10), "`final_sparsity`"),
        (lambda: PolynomialDecay(0.0, 0.8, 0, 10, power=0), "`power` must be a positive number"),
    ],
)
def test_errors_name_the_argument_and_the_cure(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "Received: " in str(error.value)


@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.uint32, np.int64])
def test_numpy_integers_are_steps(integer):
    steps = 2, 100, 10

    def plan(convert):
        begin, end, frequency = map(convert, steps)
        constant = ConstantSparsity(0.5, begin, end, frequency)
        for s in (constant, PolynomialDecay(0.0, 0.8, begin, end, frequency=frequency)):
            for step in (0, 1, 2, 13, 100, 300):
                yield s(step), s.latest_update(step), s.next_update(step), s.update_index(step)

    assert list(plan(integer)) == list(plan(int))


def test_numpy_floats_give_what_the_saved_schedule_gives():
    schedule = PolynomialDecay(np.float32(0.1), np.float16(0.9), 0, 7, np.float32(3), 1)
    copy = PolynomialDecay.from_config(json.loads(json.dumps(schedule.get_config())))
    assert [schedule.sparsity_at(step) for step in range(8)] == list(
        map(copy.sparsity_at, range(8))
    )


@pytest.mark.parametrize(
    "schedule",
    [ConstantSparsity(0.5, 1, 7, 3), PolynomialDecay(0.1, 0.9, 2, np.int64(17), 2, 4)],
)
def test_serialization(schedule):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(copy) is type(schedule)
    assert copy.get_config() == schedule.get_config()
    assert [copy(step) for step in range(20)] == [schedule(step) for step in range(20)]


def test_a_config_in_the_form_that_tfmot_writes():
    config = ConstantSparsity(0.5, 1, 7, 3).get_config()
    copy = ConstantSparsity.from_config({"class_name": "ConstantSparsity", "config": config})
    assert copy.get_config() == config


def test_a_schedule_must_be_implemented():
    with pytest.raises(TypeError, match="abstract"):
        PruningSchedule()


class Own(PolynomialDecay):
    def __call__(self, step):
        return ops.equal(step % 2, 0), ops.convert_to_tensor(0.25, "float32")


class Paused(ConstantSparsity):
    def _should_prune_in_step(self, step, begin_step, end_step, frequency):
        should_prune = super()._should_prune_in_step(step, begin_step, end_step, frequency)
        return ops.logical_and(should_prune, step < 0)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_what_a_subclass_decides_itself_counts(run_eagerly, data):
    model = prune_low_magnitude(make_mlp(), Own(0.0, 0.8, 0, 8, frequency=1))
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    with pytest.warns(UserWarning, match="25.00%|target"):  # its `final_sparsity` is 0.8
        history = fit(model, data, epochs=2)
    assert history.history["sparsity"] == pytest.approx([0.25, 0.25])
    model = prune_low_magnitude(make_mlp(), Paused(0.5, 0, frequency=1))
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    with pytest.warns(UserWarning, match="target|not pruned anything"):
        assert fit(model, data).history["sparsity"] == [0, 0]
