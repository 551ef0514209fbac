"""Shared by the workers: a small model, its training, and reporting."""

import json
import os
import sys
import time
import traceback

import keras
import numpy as np

import keras_trim

FEATURES, HIDDEN, TARGETS = 8, 16, 4
EPOCHS, BATCH, STEPS = 2, 16, 8
# 64 of 128 weights, and 32 of 64, from the sixth step on.
ZEROS = [64, 32]

_rng = np.random.default_rng(0)
X = _rng.standard_normal((64, FEATURES), "float32")
Y = _rng.standard_normal((64, TARGETS), "float32")


def make_model(is_marked=True, schedule=None, **pattern):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((FEATURES,)), keras.layers.Dense(HIDDEN), keras.layers.Dense(TARGETS)]
    )
    if is_marked:
        schedule = schedule or keras_trim.PolynomialDecay(0.0, 0.5, 0, 6, frequency=2)
        keras_trim.prune_low_magnitude(model, schedule, **pattern)
    return model


def fit(model, how="callback", epochs=EPOCHS, **compile_arguments):
    """Trains a model and returns the epochs' losses. `how`: callback, optimizer or dense."""
    optimizer = keras.optimizers.Adam(0.01)
    if how == "optimizer":
        optimizer = keras_trim.PruningOptimizer(optimizer)
    model.compile(compile_arguments.pop("optimizer", optimizer), "mse", **compile_arguments)
    return run_fit(model, how, epochs)


def run_fit(model, how="callback", epochs=EPOCHS):
    callbacks = [keras_trim.UpdatePruningStep()] if how == "callback" else []
    history = model.fit(
        X, Y, epochs=epochs, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks
    )
    return history.history["loss"]


class KilledError(Exception):
    """Simulates the end of a process."""


def fit_resumed(compiled, directory):
    """Trains a model made by `compiled` in two runs, the first of which ends mid-ramp.

    Returns:
        Tuple: the model, and the losses of all epochs.
    """

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations.numpy() == 5:
                raise KilledError

    def run(*callbacks):
        checkpoint = keras_trim.Checkpoint(directory, save_freq=3)
        callbacks = [keras_trim.UpdatePruningStep(), *callbacks, checkpoint]
        model = compiled()
        arguments = {"epochs": EPOCHS, "batch_size": BATCH, "shuffle": False, "verbose": 0}
        return model, model.fit(X, Y, callbacks=callbacks, **arguments).history["loss"]

    try:
        run(Kill())
    except KilledError:
        return run()
    raise AssertionError("training was not cut off")


def kernels(model):
    return [np.array(layer.kernel) for layer in model.layers]


def assert_exact(model):
    rows = keras_trim.sparsity_report(model).pruned_rows
    assert [row.zeros for row in rows] == ZEROS, rows


def assert_close(actual, expected):
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=1e-5)


def assert_equal(actual, expected):
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def serve(checks):
    """Runs the checks in order and prints the traceback of each failure as JSON."""
    results = {}
    for check in checks:
        start = time.perf_counter()
        try:
            check()
            results[check.__name__] = ""
        except Exception:
            results[check.__name__] = traceback.format_exc()
        print(f"{check.__name__}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    print("\n" + json.dumps(results), flush=True)
    sys.stderr.flush()
    os._exit(0)  # do not wait for other processes, which may have failed
