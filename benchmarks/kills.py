"""Kills training runs at random moments and restarts them until they finish.

Each run is killed by SIGKILL several times, before a random training step or while a checkpoint is
being written. It must end bit for bit like a run that was never killed: weights, masks, optimizer
state, metrics and history.

    KERAS_BACKEND=jax python -m benchmarks.kills --output benchmarks/results/kills_jax.json

With `XLA_FLAGS=--xla_backend_optimization_level=0`, JAX compiles faster.

This process imports Keras and forks, and its children train. A forked child is as good as a new
process, but does not import Keras again, which takes most of the time of a small run.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

EPOCHS, SAMPLES, BATCH = 3, 44, 4  # 11 batches in an epoch
MOMENTS = ("step", "write", "fsync", "replace", "removal")


def train(folder, result, kill):
    """Trains, and kills its own process on the way if asked to.

    Args:
        folder: Path for checkpoints, or `None` for none.
        result: Path of the file to write the outcome to.
        kill: Tuple: one of `MOMENTS`, and how many of them to let pass before the kill. `None` to
            finish the run.
    """
    import keras
    import numpy as np

    import keras_trim

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, 8)).astype("float32")
    y = (x @ rng.standard_normal((8, 1))).astype("float32")
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dropout(0.25)]
    model = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(1)])
    schedule = keras_trim.PolynomialDecay(0.25, 0.75, 1, 26, frequency=3)
    keras_trim.prune_low_magnitude(model, schedule)
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    callbacks = [keras_trim.UpdatePruningStep()]
    if folder is not None:
        callbacks.append(keras_trim.Checkpoint(folder, save_freq=2))
    if kill is not None:
        callbacks.append(killer(*kill))
    history = model.fit(
        x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks
    ).history
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    digests = [
        hashlib.sha256(keras.ops.convert_to_numpy(variable.value).tobytes()).hexdigest()
        for variable in variables
    ]
    zeros = sum(row.zeros for row in keras_trim.sparsity_report(model).pruned_rows)
    outcome = {"history": history, "digests": digests, "zeros": zeros}
    pathlib.Path(result).write_text(json.dumps(outcome))


def killer(moment, count):
    """Returns a callback that kills the process at a moment with SIGKILL."""
    import keras

    from keras_trim.storage.writer import Writer

    def counted(function):
        left = [count]

        def call(*args, **kwargs):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*args, **kwargs)

        return call

    class Killer(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            pass

    if moment == "step":
        Killer.on_train_batch_begin = counted(Killer.on_train_batch_begin)
    elif moment == "write":
        Writer._write = counted(Writer._write)
    elif moment == "removal":
        pathlib.Path.unlink = counted(pathlib.Path.unlink)
    else:
        setattr(os, moment, counted(getattr(os, moment)))
    return Killer()


def fork(*arguments):
    """Runs `train` in a child. Returns the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            train(*arguments)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError("A run ended with an error, see above.")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _import():
    """Imports everything that children need, once, and computes nothing."""
    import keras  # noqa: F401

    import keras_trim  # noqa: F401

    with contextlib.suppress(ImportError):
        import tensorflow  # noqa: F401 (which `keras.utils.set_random_seed` imports)


def choose(rng):
    """Chooses a moment, and how many of its kind to let pass first."""
    moment = rng.choice(MOMENTS)
    most = {"step": 28, "write": 200, "fsync": 12, "replace": 6, "removal": 4}[moment]
    return moment, rng.randrange(most)


def run(kills, seed):
    """Kills this many runs in total. Yields a dict of the results so far after each run."""
    rng = random.Random(seed)
    _import()
    import keras

    started, runs, done = time.time(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        fork(None, folder / "expected.json", None)
        expected = json.loads((folder / "expected.json").read_text())
        while done < kills:
            checkpoints = folder / f"checkpoints_{len(runs)}"
            result = folder / f"{len(runs)}.json"
            killed = []
            for _ in range(rng.randint(1, 4)):
                kill = choose(rng) if done < kills else None
                if kill is None or fork(checkpoints, result, kill) == 0:
                    break  # the run finished before that moment came
                killed.append(kill)
                done += 1
            if fork(checkpoints, result, None):
                raise RuntimeError("A run was killed by someone else.")
            outcome = json.loads(result.read_text())
            names = sorted(os.listdir(checkpoints))
            left = [name for name in names if not name.startswith("checkpoint-")]
            runs.append({"kills": killed, "is_equal": outcome == expected, "left": left})
            print(f"{done} kills, {len(runs)} runs: {runs[-1]}", flush=True)
            yield {
                "backend": keras.backend.backend(),
                "kills": done,
                "runs": len(runs),
                "equal": sum(each["is_equal"] for each in runs),
                "with_leftovers": sum(bool(each["left"]) for each in runs),
                "kills_by_moment": {
                    moment: sum(kill[0] == moment for each in runs for kill in each["kills"])
                    for moment in MOMENTS
                },
                "pruned_zeros": expected["zeros"],
                "seconds": round(time.time() - started),
                "seed": seed,
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=34)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args()
    for result in run(arguments.kills, arguments.seed):
        if arguments.output:
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return int(result["equal"] != result["runs"] or result["with_leftovers"] > 0)


if __name__ == "__main__":
    sys.exit(main())
