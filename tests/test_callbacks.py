import re

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp, values, zeros

import keras_trim
from keras_trim import ConstantSparsity, PolynomialDecay

STEPS = 8  # in a `fit` of two epochs


def train(schedule, data, model=None, **kwargs):
    model = model or make_mlp()
    keras_trim.prune_low_magnitude(model, schedule)
    if not model.compiled:
        model.compile("sgd", "mse")
    return model, fit(model, data, **kwargs)


def shown_sparsity(model, data):
    """Lists what the progress bar shows, batch by batch."""
    shown = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            shown.append(logs["sparsity"])

    fit(model, data, callbacks=[Record()])
    return shown


def test_sparsity_is_logged(data):
    _, history = train(PolynomialDecay(0.0, 0.5, 0, STEPS, power=1, frequency=2), data)
    assert history.history["sparsity"] == [0.25, 0.5]


def test_sparsity_is_in_the_progress_bar(mlp, data, capsys):
    keras_trim.prune_low_magnitude(mlp, PolynomialDecay(0.0, 0.5, 0, 4, power=1, frequency=1))
    mlp.compile("sgd", "mse")
    callbacks = [keras_trim.UpdatePruningStep()]
    mlp.fit(*data, epochs=1, batch_size=16, verbose=1, callbacks=callbacks)
    shown = re.findall(r"sparsity: ([\d.e+-]+)", capsys.readouterr().out)
    assert float(shown[-1]) == 0.5


def test_what_a_checkpoint_sees_is_sparse(data, tmp_path):
    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    path = str(tmp_path / "{epoch}-{batch}.weights.h5")
    fit(
        model,
        data,
        callbacks=[keras.callbacks.ModelCheckpoint(path, save_freq=1, save_weights_only=True)],
    )
    copy = make_mlp()
    files = sorted(tmp_path.glob("*.weights.h5"))
    assert len(files) == STEPS
    for file in files:
        copy.load_weights(file)
        assert [np.count_nonzero(values(layer.kernel) == 0) for layer in copy.layers] == [64, 8]


_LAST = (3 / 8, 3 / 8, 1 / 2)


class Watch(keras.callbacks.Callback):
    """Like a logger: notes the logs of each epoch, and what is in them."""

    def __init__(self):
        super().__init__()
        self.seen, self.batches = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(dict(logs))

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))


@pytest.mark.parametrize("place", [0, 1, 3])
def test_callbacks_in_any_order(place, data, tmp_path):
    """Those that stand before `UpdatePruningStep` see what is zero, too."""
    schedule = PolynomialDecay(0.0, 0.5, 0, STEPS, power=1, frequency=2)
    model = keras_trim.prune_low_magnitude(make_mlp(), schedule)
    model.compile("sgd", "mse")
    watch, path = Watch(), tmp_path / "log.csv"
    stop = keras.callbacks.EarlyStopping("sparsity", mode="max")  # it warns if that is not there
    callbacks = [watch, keras.callbacks.CSVLogger(str(path)), stop]
    given = [*callbacks[:place], keras_trim.UpdatePruningStep(), *callbacks[place:]]
    before = list(given)
    history = model.fit(*data, epochs=2, batch_size=16, verbose=0, callbacks=given)
    assert given == before
    assert [logs["sparsity"] for logs in watch.seen] == history.history["sparsity"] == [0.25, 0.5]
    assert [logs["sparsity"] for logs in watch.batches] == [0, 1 / 8, 1 / 8, 1 / 4, 1 / 4, *_LAST]
    assert "sparsity" in path.read_text().splitlines()[0].split(",")


def test_the_class_in_place_of_an_instance(mlp, data):
    keras_trim.prune_low_magnitude(mlp)
    mlp.compile("sgd", "mse")
    with pytest.raises(TypeError, match=r"callbacks=\[keras_trim.UpdatePruningStep\(\)\]"):
        mlp.fit(*data, verbose=0, callbacks=[keras_trim.UpdatePruningStep])


def test_nothing_is_marked(mlp, data):
    mlp.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="nothing to prune.*prune_low_magnitude"):
        fit(mlp, data)


def test_a_model_without_an_optimizer(mlp):
    callback = keras_trim.UpdatePruningStep()
    callback.set_model(keras_trim.prune_low_magnitude(mlp))
    with pytest.raises(ValueError, match=r"`model.compile\(\)`"):
        callback.on_train_begin()


@pytest.mark.parametrize(
    ("schedule", "next_update", "cure"),
    [
        (ConstantSparsity(0.5, STEPS + 1), STEPS + 1, "begin_step=0, frequency=1"),
        (PolynomialDecay(0.0, 0.5, 100, 200), 100, "begin_step=0, end_step=4, frequency=1"),
    ],
)
@pytest.mark.filterwarnings("ignore:Training ended before 2 weights")
def test_a_schedule_that_will_not_fire(schedule, next_update, cure, data):
    match = f"will not fire: its next update is at step {next_update}.* from step 0 to 8.*{cure}"
    with pytest.warns(UserWarning, match=match):
        train(schedule, data)


def test_epochs_that_are_over_do_not_count(data):
    """With `initial_epoch`, only the last two of ten epochs are trained."""
    match = "next update is at step 9.* from step 0 to 8"
    with pytest.warns(UserWarning, match=match), pytest.warns(UserWarning, match="nded"):
        train(ConstantSparsity(0.5, STEPS + 1), data, epochs=10, initial_epoch=8)


@keras.saving.register_keras_serializable(package="tests.callbacks")
class At(keras_trim.PruningSchedule):
    """Returns whatever it was given, at one step."""

    def __init__(self, step, sparsity):
        self.step, self.sparsity = step, sparsity

    def __call__(self, step):
        return keras.ops.equal(step, self.step), self.sparsity

    def get_config(self):
        return {"step": self.step, "sparsity": self.sparsity}


@keras.saving.register_keras_serializable(package="tests.callbacks")
class Ramp(keras_trim.PruningSchedule):
    """From 0 to 50 % in eight steps."""

    final_sparsity = 0.5

    def __call__(self, step):
        progress = keras.ops.minimum(keras.ops.cast(step, "float32") / 8, 1.0)
        return keras.ops.equal(step % 2, 0), 0.5 * progress

    def get_config(self):
        return {}


def test_a_users_schedule_shows_what_is_zero(data):
    _, history = train(At(3, 0.5), data)
    assert history.history["sparsity"] == [0.5, 0.5]
    model = keras_trim.prune_low_magnitude(make_mlp(), At(6, 0.5))
    model.compile("sgd", "mse")
    assert shown_sparsity(model, data) == [0, 0, 0, 0, 0, 0.5, 0.5, 0.5]


@pytest.mark.filterwarnings("ignore:The pruning schedule has not pruned anything")
def test_a_users_schedule_is_asked_out_of_order(data, monkeypatch):
    """On JAX, Keras runs callbacks of several steps at once, when masks cannot be read."""
    model, _ = train(At(STEPS + 3, 0.5), data)
    model.optimizer.read_masks(STEPS)
    monkeypatch.setattr(keras.Variable, "value", None)
    shown = [model.optimizer.scheduled_sparsity(STEPS + i) for i in (4, 0, 2, 3, 1, 5)]
    assert shown == [0.5, 0, 0, 0.5, 0, 0.5]


def test_a_users_schedule_that_never_fires(data):
    with pytest.warns(UserWarning, match="has not pruned anything up to step 8.*Received: At"):
        train(At(100, 0.5), data)


def test_a_users_schedule_that_counts_in_percent(data):
    with pytest.raises(ValueError, match=r"`sparsity of the schedule`.*\[0, 1\).*80"):
        train(At(2, 80.0), data)


def test_weights_brought_back_from_before_the_end(data):
    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["worse"] = epoch

    schedule = PolynomialDecay(0.0, 0.5, 0, STEPS, power=1, frequency=4)
    model = keras_trim.prune_low_magnitude(make_mlp(), schedule)
    model.compile("sgd", "mse")
    best = keras.callbacks.EarlyStopping("worse", mode="min", patience=5, restore_best_weights=True)
    callbacks = [keras_trim.UpdatePruningStep(), Worse(), best]
    with pytest.warns(UserWarning, match="before 2 weights reached.*at 25.00% of 50.00%"):
        model.fit(*data, epochs=2, batch_size=16, verbose=0, callbacks=callbacks)


def test_steps_that_epochs_cut_in_two(data):
    """Four batches per epoch, three per step: the second epoch starts in the middle of a step."""
    schedule = PolynomialDecay(0.0, 0.5, 0, 2, power=1, frequency=1)
    model = keras_trim.prune_low_magnitude(make_mlp(), schedule)
    model.compile(keras.optimizers.SGD(gradient_accumulation_steps=3), "mse")
    assert shown_sparsity(model, data) == [0, 0, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5]


def test_only_frozen_weights_are_marked(mlp, data):
    keras_trim.prune_low_magnitude(mlp.layers[0], ConstantSparsity(0.5, 0))
    mlp.layers[0].trainable = False
    mlp.compile("sgd", "mse")
    mlp.fit(*data, verbose=0)  # nothing to prune, so no error
    with pytest.warns(UserWarning, match="all weights that are marked are frozen"):
        fit(mlp, data)


def test_a_schedule_that_is_over_before_it_begins(mlp, data):
    mlp.compile("sgd", "mse")
    mlp.fit(*data, epochs=2, batch_size=16, verbose=0)
    match = "ended at step 4, but the optimizer is at step 8 already: 50% .* at once.*again"
    with pytest.warns(UserWarning, match=match):
        train(PolynomialDecay(0.0, 0.5, 0, 4), data, model=mlp)
    assert zeros(mlp) == [64, 8]


def test_training_that_ends_before_the_schedule(data):
    match = (
        "ends at step 20, but this `fit` goes from step 0 to 8 only, where it has come to 39% "
        "zeros of 50%. Write `PolynomialDecay.0, 0.5, begin_step=0, end_step=4, frequency=1.`"
    )
    with pytest.warns(UserWarning, match=match):  # once: a second one would be an error
        train(PolynomialDecay(0.0, 0.5, 0, 20, frequency=4), data)


def test_training_that_is_stopped_before_the_schedule_ends(data):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    model = keras_trim.prune_low_magnitude(make_mlp(), PolynomialDecay(0.0, 0.5, 0, 8, frequency=2))
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="ended at step 4, before the `end_step` 8.*Train on"):
        fit(model, data, callbacks=[Stop()])


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_epochs_in_place_of_steps(policy, data):
    """32 steps in 8 epochs, and an end at step 3."""
    keras.config.set_dtype_policy(policy)
    match = (
        "is over at step 3, within the first epoch: schedules count steps, not epochs, and an "
        "epoch of this `fit` has 4. Write `PolynomialDecay.*end_step=16, frequency=1"
    )
    with pytest.warns(UserWarning, match=match):
        train(PolynomialDecay(0.0, 0.5, 0, 3, frequency=1), data, epochs=8)


def test_a_ramp_in_one_jump(data):
    match = (
        "from 0% to 50% zeros in one jump: masks are updated every 100 steps, and its ramp has 6"
    )
    with pytest.warns(UserWarning, match=match):
        train(PolynomialDecay(0.0, 0.5, 0, 6), data)


def test_training_that_misses_its_target(data):
    class Rewind(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            self.model.layers[0].kernel.assign(np.ones((8, 16), "float32"))

    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    model.compile("sgd", "mse")
    callbacks = [Rewind(), keras_trim.UpdatePruningStep()]
    match = "1 weight reached its target sparsity: .*hidden/kernel at 0.00% of 50.00%"
    with pytest.warns(UserWarning, match=match):
        model.fit(*data, verbose=0, callbacks=callbacks)
    with pytest.warns(UserWarning, match="Pruning was stripped before"):
        keras_trim.strip_pruning(model)


@pytest.mark.parametrize(
    "schedule", [ConstantSparsity(0.25, 0), PolynomialDecay(0.0, 0.75, 0, 4, frequency=1)]
)
def test_a_target_that_would_revive_weights(schedule, mlp, data):
    keras_trim.prune(mlp, 0.5)
    with pytest.warns(UserWarning, match="2 weights are sparser already.*50.00% > "):
        train(schedule, data, model=mlp)


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule", [ConstantSparsity(0.5, 6, frequency=1), PolynomialDecay(0.5, 0.5, 4, 8), Ramp()]
)
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_schedule_that_starts_anew_would_revive_weights(schedule, is_wrapped, data):
    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    model.compile("sgd", "mse")
    fit(model, data)
    keras_trim.prune_low_magnitude(keras_trim.strip_pruning(model), schedule)
    model.compile(keras_trim.PruningOptimizer("sgd") if is_wrapped else "sgd", "mse")
    with pytest.warns(UserWarning, match=r"2 weights are sparser already.*50.00% > [06]\.[02]"):
        fit(model, data, epochs=2)


def test_layers_that_are_added_after_the_model_is_marked(mlp, data):
    keras_trim.prune_low_magnitude(mlp, ConstantSparsity(0.5, 0))
    mlp.add(keras.layers.Dense(1, name="late"))
    mlp.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="1 weight was added after .*late/kernel"):
        fit(mlp, data)


def test_several_steps_in_a_batch(data):
    """What is logged is what is there, not what a step per batch would have come to."""

    class Twice(keras.Sequential):
        def train_step(self, *args):
            super().train_step(*args)
            return super().train_step(*args)

    if keras.backend.backend() == "jax":
        pytest.skip("on JAX, `train_step` returns its state: it cannot run twice like this")
    model = Twice(make_mlp().layers)
    keras_trim.prune_low_magnitude(model, PolynomialDecay(0.0, 0.5, 0, 16, frequency=1))
    model.compile("sgd", "mse")
    expected = [0.5 - 0.5 * (1 - step / 16) ** 3 for step in range(2, 17, 2)]
    np.testing.assert_allclose(shown_sparsity(model, data), expected, atol=0.01)
    assert int(model.optimizer.iterations) == 16


def test_weights_that_begin_at_zero_are_no_revival(data):
    # Warnings are errors in this suite.
    schedule = ConstantSparsity(0.5, STEPS - 1)
    model, _ = train(schedule, data, model=make_mlp(kernel_initializer="zeros"))
    assert model.optimizer.pruned_weights[0].spec.target_zeros == 64


def test_training_resumes_quietly(data):
    schedule = PolynomialDecay(0.0, 0.5, 0, STEPS, frequency=2)
    model = keras_trim.prune_low_magnitude(make_mlp(), schedule)
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="ends at step 8, but this `fit` goes .* to 4"):
        fit(model, data, epochs=1)
    fit(model, data, epochs=1)
    assert zeros(model) == [64, 8]
    fit(model, data, epochs=1)  # masks stay after the end
    assert zeros(model) == [64, 8]


def test_a_short_fit_after_the_first_is_quiet(mlp, data):
    train(ConstantSparsity(0.5, 0), data, model=mlp)
    fit(mlp, data)  # no warning, though the next update at step 100 is beyond this `fit`
    assert zeros(mlp) == [64, 8]


def test_evaluate_and_predict_with_the_callback(mlp, data):
    keras_trim.prune_low_magnitude(mlp, ConstantSparsity(0.5, 0))
    mlp.compile("sgd", "mse")
    callbacks = [keras_trim.UpdatePruningStep()]
    mlp.evaluate(*data, verbose=0, callbacks=callbacks)
    mlp.predict(data[0], verbose=0, callbacks=callbacks)
    assert values(mlp.layers[0].kernel).all()


def test_train_on_batch(mlp, data):
    keras_trim.prune_low_magnitude(mlp, ConstantSparsity(0.5, 0))
    mlp.compile("sgd", "mse")
    callback = keras_trim.UpdatePruningStep()
    callback.set_model(mlp)
    mlp.train_on_batch(*data)
    assert zeros(mlp) == [64, 8]


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_steps_per_execution(steps_per_execution, data):
    if keras.backend.backend() == "torch":
        steps_per_execution = 1  # Keras supports no other value on PyTorch
    model = keras_trim.prune_low_magnitude(
        make_mlp(), PolynomialDecay(0.0, 0.5, 0, STEPS, power=1, frequency=2)
    )
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    history = fit(model, data)
    assert history.history["sparsity"] == [0.25, 0.5]


def test_summaries(data, tmp_path):
    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    model.compile("sgd", "mse")
    fit(model, data, callbacks=[keras_trim.PruningSummaries(log_dir=str(tmp_path))])

    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    scalars = {}
    for file in (tmp_path / "train").glob("events*"):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                scalars[value.tag, event.step] = make_ndarray(value.tensor).item()
    path = model.layers[0].kernel.path
    magnitudes = np.abs(values(model.layers[0].kernel))
    assert scalars[f"{path}/sparsity", STEPS] == 0.5
    assert scalars[f"{path}/threshold", STEPS] == magnitudes[magnitudes > 0].min()
    assert scalars["sparsity/measured", STEPS // 2] == 0.5
    assert scalars["sparsity/scheduled", STEPS] == 0.5
    assert ("epoch_loss", 1) in scalars
    with pytest.raises(ValueError, match="`log_dir` must be the path"):
        keras_trim.PruningSummaries(log_dir="")
