"""`Checkpoint`: an interrupted run equals an uninterrupted one."""

import random

import keras
import numpy as np
import pytest

import keras_trim
from keras_trim.annotations import is_to_be_pruned

BACKEND = keras.backend.backend()
SAMPLES, BATCH, EPOCHS = 22, 4, 3  # 6 batches in an epoch, the last one of 2 samples
BATCHES = 6
SCHEDULE = keras_trim.PolynomialDecay(0.25, 0.75, 1, 14, frequency=3)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((SAMPLES, 8)).astype("float32")
Y = (X @ RNG.standard_normal((8, 1))).astype("float32")


class StoppedError(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Ends `fit` before a given batch, counted from the start of this `fit`."""

    def __init__(self, batch):
        super().__init__()
        self.left = batch

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            raise StoppedError
        self.left -= 1


def make_model(prune=True, optimizer=None, **compile_arguments):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.25),
            keras.layers.Dense(1),
        ]
    )
    if prune:
        keras_trim.prune_low_magnitude(model, SCHEDULE)
    model.compile(
        optimizer or keras.optimizers.Adam(0.01), "mse", metrics=["mae"], **compile_arguments
    )
    return model


def make_small():
    """A small dense model, whose training step is compiled where running it eagerly is slower."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=BACKEND == "torch")
    return model


def fit(model, data, callbacks=(), **kwargs):
    kwargs = {"epochs": EPOCHS, "verbose": 0, "shuffle": isinstance(data[0], np.ndarray), **kwargs}
    if is_to_be_pruned(model):
        callbacks = [keras_trim.UpdatePruningStep(), *callbacks]
    return model.fit(*data, callbacks=list(callbacks), **kwargs)


def state(model):
    """Returns all variables by group, including metrics, as NumPy arrays."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [keras.ops.convert_to_numpy(variable.value) for variable in variables]


def assert_same(model, other):
    mine, theirs = state(model), state(other)
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def begin(seed):
    """Restarts names and random numbers, as in a new process."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)


def run(folder, make_data, interrupts, make=make_model, save_freq=1, callbacks=list, **kwargs):
    """Interrupts a run and restarts it as often as given. Returns model and history."""
    is_seeded = kwargs.pop("is_seeded", True)
    for index, batch in enumerate([*interrupts, 10**9]):
        begin(seed=0 if is_seeded else index)
        model = make()
        checkpoint = keras_trim.Checkpoint(folder, save_freq=save_freq)
        try:
            every = [Interrupt(batch), *callbacks(), checkpoint]
            return model, fit(model, make_data(), every, **kwargs).history
        except StoppedError:
            pass


def run_uninterrupted(make_data, make=make_model, callbacks=list, is_seeded=True, **kwargs):
    begin(seed=0)
    model = make()
    return model, fit(model, make_data(), callbacks(), **kwargs).history


def check(folder, make_data, interrupts=(8,), **kwargs):
    save_freq = kwargs.pop("save_freq", 1)
    expected, expected_history = run_uninterrupted(make_data, **kwargs)
    model, history = run(folder, make_data, interrupts, save_freq=save_freq, **kwargs)
    assert_same(model, expected)
    assert history == expected_history
    return model


class Indexed(keras.utils.PyDataset):
    """Draws an order at the beginning, from its own random numbers or NumPy's."""

    def __init__(self, order=np.random, **kwargs):
        super().__init__(**kwargs)
        self.order = order
        self.indices = order.permutation(SAMPLES)

    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        rows = self.indices[index * BATCH : (index + 1) * BATCH]
        return X[rows], Y[rows]


class Augmented(Indexed):
    """Shuffles itself between epochs."""

    def on_epoch_end(self):
        self.order.shuffle(self.indices)


class Noisy(Augmented):
    """Draws random numbers in each batch, and before each epoch."""

    def on_epoch_begin(self):
        self.indices = np.roll(self.indices, random.randrange(SAMPLES))

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.float32(random.random() / 8), y


def generator(steps):
    order = np.random.default_rng(3)
    for _ in range(steps):
        rows = order.permutation(SAMPLES)[:BATCH]
        yield X[rows], Y[rows]


def tf_data(**shuffle):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(8, **shuffle).batch(BATCH)


def loader(**kwargs):
    import torch

    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, **kwargs)


def seeded_loader():
    import torch

    return loader(generator=torch.Generator().manual_seed(5))


def torch_loader():
    # Outside PyTorch, the program seeds its generator, not Keras.
    import torch

    torch.manual_seed(0)
    return loader()


DATA = {
    "arrays": (lambda: (X, Y), {"batch_size": BATCH}),
    "arrays in order": (lambda: (X, Y), {"batch_size": BATCH, "shuffle": False}),
    "arrays, batches shuffled": (lambda: (X, Y), {"batch_size": BATCH, "shuffle": "batch"}),
    "arrays, stream": (lambda: (X, Y), {"batch_size": BATCH, "steps_per_epoch": 3}),
    "PyDataset": (lambda: (Augmented(np.random.default_rng(1)),), {"shuffle": True}),
    "PyDataset, NumPy": (lambda: (Augmented(),), {}),
    "PyDataset, stream": (lambda: (Augmented(np.random.default_rng(1)),), {"steps_per_epoch": 3}),
    "PyDataset, workers": (lambda: (Indexed(np.random.default_rng(1), workers=2),), {}),
    "PyDataset, noise": (lambda: (Noisy(np.random.default_rng(1)),), {}),
    "generator": (lambda: (generator(6 * EPOCHS),), {"steps_per_epoch": 6}),
    "tf.data": (lambda: (tf_data(seed=3),), {}),
    "tf.data, stream": (lambda: (tf_data(seed=3).repeat(),), {"steps_per_epoch": 4}),
    "DataLoader": (lambda: (torch_loader(),), {}),
    "DataLoader, generator": (lambda: (seeded_loader(),), {}),
}


if BACKEND == "tensorflow":  # draws batches in the background
    del DATA["PyDataset, noise"]  # random numbers, too
    del DATA["PyDataset, stream"]  # while it shuffles itself: even uninterrupted runs differ


@pytest.mark.slow
@pytest.mark.parametrize("data", DATA)
def test_each_kind_of_data_goes_on_in_the_same_order(data, tmp_path):
    make_data, arguments = DATA[data]
    steps = arguments.get("steps_per_epoch", BATCHES)
    # After the second batch of the second epoch, then just before the third one begins.
    interrupts = [steps + 2, steps - 2]
    check(tmp_path, make_data, interrupts, make=make_small, save_freq=2, **arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(Training ended|The pruning schedule ends) at step")
def test_a_pruned_model_goes_on_with_masks_and_momenta(tmp_path):
    """Interrupts in the middle of the schedule. Mixed precision has its own state."""
    keras.config.set_dtype_policy("mixed_float16")
    make_data, arguments = DATA["arrays"]
    model = check(tmp_path, make_data, [8, 3], save_freq=3, **arguments)
    assert [row.zeros for row in keras_trim.sparsity_report(model).pruned_rows] == [96, 12]


def test_the_seed_of_the_program_does_not_matter(tmp_path):
    """Earlier draws are in the checkpoint, except TensorFlow's shuffle, which has its own seed."""
    shuffle = BACKEND != "tensorflow"
    make_data, arguments = DATA["arrays"]
    arguments = {**arguments, "shuffle": shuffle, "is_seeded": False}
    check(tmp_path, make_data, [8], make=make_small, save_freq=2, **arguments)


@pytest.mark.slow
def test_callbacks_of_keras_go_on(tmp_path):
    """`EarlyStopping` counts epochs without progress; `ReduceLROnPlateau` lowers the rate."""

    def callbacks():
        return [
            keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10.0),
            keras.callbacks.EarlyStopping(
                "loss", patience=3, min_delta=10.0, restore_best_weights=True
            ),
        ]

    make_data, arguments = DATA["arrays"]
    arguments = {**arguments, "epochs": 8, "make": make_small, "callbacks": callbacks}
    model = check(tmp_path, make_data, [8, 6], save_freq="epoch", **arguments)
    history = model.history.history
    assert len(history["loss"]) == 4  # it has stopped early
    # Run again, it neither trains nor forgets.
    with pytest.warns(UserWarning, match="trained nothing: the run in this folder is finished"):
        again, history_again = run(tmp_path, make_data, [], **arguments)
    assert_same(again, model)
    assert history_again == history


@pytest.mark.parametrize("container", [list, tuple, lambda pair: dict(enumerate(pair))])
def test_optimizers_that_a_model_keeps_together_go_on(container, tmp_path):
    class Step(keras.callbacks.Callback):
        """What a `train_step` of the user's own does."""

        def on_train_batch_end(self, batch, logs=None):
            for index in range(2):
                self.model.others[index].iterations.assign_add(index + 1)

    def make():
        model = make_small()
        model.others = container([keras.optimizers.Adam(), keras.optimizers.Adam()])
        for index in range(2):
            model.others[index].build(model.trainable_variables)
        return model

    make_data, arguments = DATA["arrays"]
    model, _ = run(tmp_path, make_data, [8], make=make, callbacks=lambda: [Step()], **arguments)
    steps = [int(model.others[index].iterations) for index in range(2)]
    assert steps == [EPOCHS * BATCHES, 2 * EPOCHS * BATCHES]


def test_after_the_end_more_epochs_are_trained(tmp_path):
    make_data, arguments = DATA["arrays"]
    arguments = {**arguments, "make": make_small}
    expected, history = run_uninterrupted(make_data, **arguments)
    first, _ = run(tmp_path, make_data, [], **{**arguments, "epochs": EPOCHS - 1})
    assert int(first.optimizer.iterations) == BATCHES * (EPOCHS - 1)
    model, all_history = run(tmp_path, make_data, [], **arguments)
    assert_same(model, expected)
    assert all_history == history


def test_checkpoints_are_written_as_often_as_said(tmp_path):
    def batches(**kwargs):
        folder = tmp_path / str(kwargs)
        begin(0)
        checkpoint = keras_trim.Checkpoint(folder, max_to_keep=100, **kwargs)
        make_small().fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[checkpoint])
        return sorted(int(path.stem.removeprefix("checkpoint-")) for path in folder.iterdir())

    assert batches() == [6, 12]
    assert batches(save_freq=5) == [5, 10, 12]
    assert batches(save_freq=None, every_seconds=1e-9) == [*range(1, 13)]
    assert batches(save_freq=None, every_seconds=1e9) == [12]


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, of 10 and 12 batches."""
    begin(0)
    make_small().fit(
        X,
        Y,
        batch_size=BATCH,
        epochs=2,
        verbose=0,
        callbacks=[keras_trim.Checkpoint(tmp_path, save_freq=5)],
    )
    assert [path.name for path in newest_first(tmp_path)] == [
        "checkpoint-0000000012.ktrim",
        "checkpoint-0000000010.ktrim",
    ]
    return tmp_path


def newest_first(folder):
    return sorted(folder.iterdir(), reverse=True)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut short":
        data = data[: len(data) // 2]
    elif how == "a flipped byte":
        data[len(data) // 3] ^= 1
    path.write_bytes(data)


def resume(folder, model=None, **kwargs):
    model = model or make_small()
    arguments = {"batch_size": BATCH, "epochs": EPOCHS, "verbose": 0, **kwargs}
    model.fit(X, Y, callbacks=[keras_trim.Checkpoint(folder)], **arguments)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut short", "a flipped byte"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(how, folder):
    damage(newest_first(folder)[0], how)
    begin(0)
    with pytest.warns(UserWarning, match="resumes from checkpoint-0000000010.ktrim.*0000000012"):
        model = resume(folder)
    begin(0)
    assert_same(model, run_uninterrupted(*DATA["arrays"][:1], make_small, batch_size=BATCH)[0])
    assert "checkpoint-0000000012.ktrim" in [path.name for path in newest_first(folder)]


def test_all_checkpoints_are_damaged(folder):
    for path in folder.iterdir():
        damage(path, "a flipped byte")
    begin(0)
    model = make_small()
    before = state(model)
    with pytest.raises(ValueError, match="None of the checkpoints can be read.*Received: dir"):
        resume(folder, model)
    for mine, theirs in zip(state(model), before, strict=False):
        np.testing.assert_array_equal(mine, theirs)


def test_a_checkpoint_of_another_model(folder):
    begin(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, name="another")])
    model.compile("sgd", "mse")
    before = model.get_weights()
    match = "different model.*Received: .* differences: .*dense/kernel.*the model does not"
    with pytest.raises(ValueError, match=match):
        resume(folder, model)
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_checkpoint_of_other_data(tmp_path):
    begin(0)
    with pytest.raises(StoppedError):
        make_small().fit(
            X,
            Y,
            batch_size=BATCH,
            verbose=0,
            callbacks=[Interrupt(4), keras_trim.Checkpoint(tmp_path, save_freq=1)],
        )
    begin(0)
    with pytest.raises(ValueError, match="Received: 3 batches per epoch instead of 6"):
        resume(tmp_path, batch_size=8)
    begin(0)
    with pytest.raises(ValueError, match="ended after 2 batches.*Received: 2 batches"):
        fit(make_small(), (generator(2),), [keras_trim.Checkpoint(tmp_path)])


def test_tensorflow_shuffles_without_a_seed(tmp_path):
    from tensorflow.python.eager import context

    context.set_global_seed(None)
    with pytest.warns(UserWarning, match="without a seed.*set_random_seed"):
        fit(make_small(), (tf_data(),), [keras_trim.Checkpoint(tmp_path)], epochs=1)


class Stop(keras.callbacks.Callback):
    """Ends training after a given batch, in the middle of an epoch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.model.stop_training = True


def test_a_stream_that_was_stopped_within_an_epoch_goes_on_with_its_next_batch(tmp_path):
    arguments = {"shuffle": False, "steps_per_epoch": 3, "batch_size": BATCH}
    for epochs, last in ((1, 1), (2, 0)):  # batches 0 and 1, then batch 2
        begin(0)
        model = make_small()
        callbacks = [Stop(last), keras_trim.Checkpoint(tmp_path)]
        fit(model, (X, Y), callbacks, epochs=epochs, **arguments)
    begin(0)
    expected = make_small()
    for start in range(0, 3 * BATCH, BATCH):
        expected.train_on_batch(X[start : start + BATCH], Y[start : start + BATCH])
    for mine, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"epochs": 2, "initial_epoch": 2}])
def test_a_fit_without_epochs_ends_no_run(tmp_path, arguments):
    begin(0)
    resume(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []
    begin(0)
    assert int(resume(tmp_path, epochs=1).optimizer.iterations) == BATCHES


@pytest.mark.parametrize("name", ["file", "file/folder"])
def test_a_folder_that_cannot_be_made_is_told_before_training(tmp_path, name):
    (tmp_path / "file").touch()
    begin(0)
    model = make_small()
    before = model.get_weights()
    with pytest.raises(OSError, match=f"cannot be written to this folder.*Received: .*{name}"):
        resume(tmp_path / name, model)
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_working_directory_may_change(tmp_path, monkeypatch):
    class Move(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            (tmp_path / str(epoch)).mkdir()
            monkeypatch.chdir(tmp_path / str(epoch))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    begin(0)
    callbacks = [Move(), keras_trim.Checkpoint("here"), keras_trim.Checkpoint("~/there")]
    make_small().fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    found = sorted(path.relative_to(tmp_path).parent for path in tmp_path.rglob("*.ktrim"))
    assert [str(path) for path in found] == ["here", "here", "home/there", "home/there"]


def test_an_interrupted_restart_does_not_change_the_next_fit(tmp_path):
    """`fit` draws again what was drawn, which takes a while for generators."""

    def fails_at(count):
        yield from ((X[:BATCH], Y[:BATCH]) for _ in range(count))
        raise StoppedError

    begin(0)
    first = [Interrupt(9), keras_trim.Checkpoint(tmp_path, save_freq=1)]
    with pytest.raises(StoppedError):
        fit(make_small(), (fails_at(100),), first, steps_per_epoch=4, epochs=4)
    begin(0)
    model = make_small()
    with pytest.raises(Exception, match="^$|StoppedError"):  # TensorFlow wraps it
        fit(model, (fails_at(5),), [keras_trim.Checkpoint(tmp_path)], steps_per_epoch=4, epochs=4)
    history = model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0)
    assert history.epoch == [0, 1]


def test_logs_may_hold_tensors(tmp_path):
    class Log(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["norm"] = keras.ops.norm(self.model.layers[-1].kernel)

    begin(0)
    model = make_small()
    callbacks = [Log(), keras_trim.Checkpoint(tmp_path)]
    expected = fit(model, (X, Y), callbacks, epochs=2).history["norm"]
    begin(0)
    with pytest.warns(UserWarning, match="trained nothing"):
        history = resume(tmp_path, epochs=2).history.history
    assert history["norm"] == [float(keras.ops.convert_to_numpy(each)) for each in expected]


def test_outside_of_fit(tmp_path):
    callback = keras_trim.Checkpoint(tmp_path)
    callback.set_model(make_small())
    with pytest.raises(RuntimeError, match="`model.fit`"):
        callback.on_train_begin()


@pytest.mark.parametrize(
    "arguments",
    [
        {"directory": ""},
        {"directory": "gs://bucket/checkpoints"},
        {"save_freq": 0},
        {"save_freq": "step"},
        {"every_seconds": 0},
        {"every_seconds": True},
        {"max_to_keep": 0},
    ],
)
def test_arguments_are_checked(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
        keras_trim.Checkpoint(**{"directory": "checkpoints", **arguments})
