"""Keras's own ways to resume work with pruning wherever they work without it."""

import keras
import numpy as np
import pytest
from conftest import make_mlp, values

import keras_trim

SCHEDULE = keras_trim.PolynomialDecay(0.25, 0.75, 1, 14, frequency=3)
EPOCHS = 2  # of four steps each, before the interruption and after it


def make(pruned):
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    model = make_mlp()
    if pruned:
        keras_trim.prune_low_magnitude(model, SCHEDULE)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def train(model, data, pruned, *callbacks, until=2 * EPOCHS, since=0):
    callbacks = [*([keras_trim.UpdatePruningStep()] if pruned else []), *callbacks]
    model.fit(
        *data,
        batch_size=16,
        epochs=until,
        initial_epoch=since,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    return model


def whole_models(data, pruned, folder):
    saver = keras.callbacks.ModelCheckpoint(str(folder / "a.keras"))
    train(make(pruned), data, pruned, saver, until=EPOCHS)
    keras.utils.clear_session()
    return train(keras.models.load_model(folder / "a.keras"), data, pruned, since=EPOCHS)


def weights_only(data, pruned, folder):
    path = str(folder / "a.weights.h5")
    saver = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    train(make(pruned), data, pruned, saver, until=EPOCHS)
    model = make(pruned)
    if not pruned:  # Keras needs this: otherwise it skips the optimizer's state, with a warning
        model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    return train(model, data, pruned, since=EPOCHS)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == EPOCHS:
            raise KeyboardInterrupt


def backup_and_restore(data, pruned, folder):
    def backup():
        return keras.callbacks.BackupAndRestore(str(folder / "backup"))

    with pytest.raises(KeyboardInterrupt):
        train(make(pruned), data, pruned, backup(), Interrupt())
    model = make(pruned)
    if not pruned:
        model.optimizer.build(model.trainable_variables)
    return train(model, data, pruned, backup())


def orbax(data, pruned, folder):
    directory = str(folder / "orbax")
    saver = keras.callbacks.OrbaxCheckpoint(directory, save_on_background=False)
    train(make(pruned), data, pruned, saver, until=EPOCHS)
    model = make(pruned)
    if not pruned:
        model.optimizer.build(model.trainable_variables)
    model.load_weights(directory)
    return train(model, data, pruned, since=EPOCHS)


WAYS = {
    "whole models": whole_models,
    "weights only": weights_only,
    "backup and restore": backup_and_restore,
    "orbax": orbax,
}


def difference(model, other):
    """The largest difference among all weights and the optimizer's variables."""
    pairs = [*zip(model.variables, other.variables, strict=True)]
    pairs += [*zip(model.optimizer.variables, other.optimizer.variables, strict=True)]
    return max(float(np.max(np.abs(values(a) * 1.0 - values(b) * 1.0))) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(Training ended|The pruning schedule ends) at step")
@pytest.mark.parametrize("way", WAYS)
def test_resumed_equals_uninterrupted(way, data, tmp_path):
    for pruned in (False, True):
        folder = tmp_path / str(pruned)
        folder.mkdir()
        try:
            resumed = WAYS[way](data, pruned, folder)
        except Exception as error:
            if pruned:
                raise
            pytest.skip(f"Keras fails without pruning, too: {str(error)[:200]}")
        uninterrupted = train(make(pruned), data, pruned)
        assert difference(resumed, uninterrupted) == 0, pruned


def folder_size(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_sizes_of_checkpoints(tmp_path):
    """A pruned checkpoint with Adam is at most 5 % larger than a dense one."""
    x, y = np.zeros((8, 256), "float32"), np.zeros((8, 512), "float32")
    sizes = {}
    for pruned in (False, True):
        keras.utils.clear_session()
        model = keras.Sequential([keras.Input((256,)), keras.layers.Dense(512)])
        if pruned:
            keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5, 0))
        model.compile("adam", "mse")
        train(model, (x, y), pruned, until=1)
        folder = tmp_path / str(pruned)
        folder.mkdir()
        model.save(folder / "a.keras")
        model.save_weights(folder / "a.weights.h5")
        keras_trim.save(model, folder / "a.ktrim", include_optimizer=True)
        saver = keras.callbacks.OrbaxCheckpoint(str(folder / "orbax"), save_on_background=False)
        train(model, (x, y), pruned, saver, until=1)
        sizes[pruned] = {
            path.name: folder_size(path) or path.stat().st_size for path in folder.iterdir()
        }
    for name, dense in sizes[False].items():
        assert sizes[True][name] <= 1.05 * dense, (name, sizes)
