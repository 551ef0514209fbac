"""Runs all rows of a task. Skips finished rows and resumes an interrupted one."""

import contextlib
import pathlib
import shutil
import time

import numpy as np

from benchmarks._common import PEER_PACKAGES, Worker
from benchmarks._one_shot_measure import NUM_EXAMPLES, estimate_statistics
from experiments import shipping, training
from experiments.library import keras


class Grid:
    """Runs the missing rows of a task.

    Each seed starts from a dense checkpoint, which is trained first or given. Every row continues
    from that checkpoint for the same number of steps, dense or at one sparsity. `choose` selects
    the learning rate, and whether the first layer stays dense, once for all rows.

    Args:
        task: `experiments.task.Task`.
        records: `experiments.records.Records`.
        work: `pathlib.Path` of the folder for checkpoints and exported files.
        peer_python: Path of an interpreter with TFMOT installed, or `None`.
        data: String. The value of `--data`, which TFMOT's process reads as well.
        quick: Boolean. Whether sizes are tiny, for a quick try.
    """

    def __init__(self, task, records, work, peer_python=None, data=None, quick=False):
        self._task, self._records, self._work = task, records, work
        self._peer_python, self._data, self._quick = peer_python, data, quick
        self._seconds = []
        self._left = 0

    def run(self, seeds, only=None):
        """Runs the missing rows. Finishes all rows of one seed before it starts the next.

        Args:
            seeds: Sequence of integers.
            only: List of targets to run, or `None` for all.
        """
        rows = [("keras-trim", target) for target in (None, *self._task.targets)]
        if self._peer_python and self._task.goal.with_tfmot:
            rows += [("TFMOT", target) for target in self._task.targets]
        missing = [
            (seed, *row)
            for seed in seeds
            for row in rows
            if (only is None or row[1] in only) and not self._find(seed, *row)
        ]
        self._left = len(missing)
        choice = self.choose(seeds[0])
        for seed, library, target in missing:
            self._run_row(seed, library, target, choice)
            self._left -= 1

    def _find(self, seed, library, target):
        return self._records.find(
            kind="row", seed=seed, library=library, target=target, backend=_backend(library)
        )

    def choose(self, seed):
        """Chooses the settings of all rows on the validation set.

        Trains the row of `choice_target` with each learning rate and every layer pruned, and keeps
        the rate with the best validation score. Then trains that row with the task's first layer
        dense, and keeps this layer dense if the score is higher.

        Args:
            seed: Integer. The seed to train with.

        Returns:
            Dict with the keys `rate` and `dense_layer`.
        """
        done = self._records.find(kind="choice")
        if done:
            return {key: done[-1][key] for key in ("rate", "dense_layer")}
        settings = self._task.settings
        choice = {"rate": settings.rates[0], "dense_layer": None}
        if len(settings.rates) > 1:
            choice["rate"] = max(settings.rates, key=lambda rate: self._try(seed, rate))
        first = self._task.first_layer
        if first and self._try(seed, choice["rate"], first) > self._try(seed, choice["rate"]):
            choice["dense_layer"] = first
        self._records.append({"kind": "choice", **choice})
        return choice

    def _try(self, seed, rate, layer=None):
        """Returns the validation score of the row of `choice_target` with these settings."""
        trial = {"kind": "trial", "rate": rate, "dense_layer": layer}
        done = self._records.find(**trial)
        if done:
            return done[-1]["val"]
        label = f"choosing settings: learning rate {rate}, dense layer {layer}"
        model, _ = self._train(seed, self._task.settings.choice_target, trial, label)
        self._update_statistics(model)
        score = self._task.score(model, "val")
        print(f"{label}: validation {score:.2f}", flush=True)
        self._records.append({**trial, "val": score})
        return score

    def _start_weights(self, seed):
        """Returns the dense weights that all rows of a seed start from, trained if needed."""
        task = self._task
        path = self._start_path(seed)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            if task.weights_are_given:
                model = task.build(keras)
                task.initial_weights(model)
                folder = None
            else:
                folder = self._work / f"dense-{seed}"
                model = training.train_dense(task, seed, folder, f"{task.name}, dense, seed {seed}")
            found = shipping.ship(task, model, self._work / f"start-{seed}.ktrim")
            print(f"{task.name}: dense checkpoint, test {found['test']:.2f}", flush=True)
            _save_arrays(path, model.get_weights())
            seconds = time.perf_counter() - start
            self._records.append({"kind": "start", "seed": seed, **found, "seconds": seconds})
            if folder:
                shutil.rmtree(folder)
        return _load_arrays(path)

    def _start_path(self, seed):
        return self._work / ("start.npz" if self._task.weights_are_given else f"start-{seed}.npz")

    def _train(self, seed, target, choice, label):
        """Trains a row and deletes the checkpoints of other rows.

        The weights stay in a file, because the row may have been trained to choose the settings.

        Returns:
            Tuple: Keras model, and how many seconds training took.
        """
        folder = self._work / "checkpoints"
        steps = self._task.settings.epochs * self._task.num_batches()
        settings = f"{choice['rate']}-{choice['dense_layer']}-{_backend('keras-trim')}-{steps}"
        name = f"{_target_name(target)}-{seed}-{settings}"
        for other in folder.glob("*"):
            if other.name != name:
                shutil.rmtree(other)
        trained = self._work / "trained" / f"{name}.npz"
        if trained.exists():
            training.reset(seed)
            model = self._task.build(keras)
            *weights, seconds = _load_arrays(trained)
            model.set_weights(weights)
            return model, float(seconds)
        start = time.perf_counter()
        model = training.train_on(
            self._task,
            self._start_weights(seed),
            target,
            seed,
            choice["rate"],
            choice["dense_layer"],
            folder / name,
            label,
        )
        seconds = time.perf_counter() - start
        trained.parent.mkdir(exist_ok=True)
        _save_arrays(trained, [*model.get_weights(), seconds])
        return model, seconds

    def _run_row(self, seed, library, target, choice):
        task = self._task
        label = f"{task.name}, {library}, {_target_name(target)}, seed {seed}"
        if self._seconds:
            hours = self._left * np.mean(self._seconds) / 3600
            label = f"{label} ({self._left} rows left, about {hours:.1f} hours)"
        print(label, flush=True)
        start, versions = time.perf_counter(), None
        if library == "TFMOT":
            model, versions = self._train_peer(seed, target, choice)
            trained = time.perf_counter() - start
        else:
            model, trained = self._train(seed, target, choice, label)
        self._update_statistics(model)
        path = self._work / f"{library}-{_target_name(target)}-{seed}.ktrim"
        found = shipping.ship(task, model, path, choice["dense_layer"])
        self._seconds.append(time.perf_counter() - start)
        self._records.append(
            {
                "kind": "row",
                "library": library,
                "backend": _backend(library),
                "target": target,
                "seed": seed,
                **found,
                "seconds": round(trained, 1),
                "epochs": task.settings.epochs,
                "steps": task.settings.epochs * task.num_batches(),
                "batch_size": task.batch_size,
                "schedule": task.settings.schedule(task.settings.epochs * task.num_batches()),
                "weight_decay": task.settings.weight_decay,
                "clip_norm": task.settings.clip_norm,
                "new_statistics": task.settings.new_statistics,
                **choice,
                "data": task.about_data,
                "versions": versions,
            }
        )
        print(f"{label}: test {found['test']:.2f}", flush=True)
        keras.backend.clear_session()

    def _update_statistics(self, model):
        if self._task.settings.new_statistics:
            estimate_statistics(model, self._task.examples(NUM_EXAMPLES))

    def _train_peer(self, seed, target, choice):
        """Trains a row with TFMOT from the same checkpoint.

        Returns:
            Tuple: Keras 3 model with TFMOT's weights, and a dict of TFMOT's package versions.
        """
        self._start_weights(seed)
        path = self._work / "peer.npz"
        with contextlib.ExitStack() as stack:
            worker = stack.enter_context(
                Worker("experiments._peer", "tensorflow", self._peer_python, LIBRARY="TFMOT")
            )
            answer = worker.call(
                "train",
                module=self._task.module,
                task=self._task.command,
                data=self._data,
                quick=self._quick,
                start=str(self._start_path(seed)),
                path=str(path),
                target=target,
                seed=seed,
                **choice,
            )
            versions = worker.call("package_versions", names=PEER_PACKAGES)
        model = self._task.build(keras)
        model.set_weights(_load_arrays(path))
        x = self._task.examples()
        found = model.predict(x, verbose=0)
        np.testing.assert_allclose(found, np.array(answer), rtol=1e-3, atol=1e-4)
        return model, versions

    def measure(self):
        """Times the exported files of the targets that have no times yet.

        Uses the first seed that has a file.
        """
        for row in self._records.find(kind="row", library="keras-trim"):
            path = self._work / f"keras-trim-{_target_name(row['target'])}-{row['seed']}.ktrim"
            timed = self._records.find(kind="time", target=row["target"])
            if timed or not path.exists() or not self._task.can_be_timed:
                continue
            found = shipping.milliseconds(path)
            print(f"{self._task.name}, {_target_name(row['target'])}: {found}", flush=True)
            found = {"milliseconds": found, "litert_bytes": shipping.litert_bytes(path)}
            self._records.append({"kind": "time", "target": row["target"], **found})


def _backend(library):
    return "tensorflow" if library == "TFMOT" else keras.backend.backend()


def _save_arrays(path, arrays):
    temporary = pathlib.Path(f"{path}.partly.npz")
    np.savez(temporary, *arrays)
    temporary.rename(path)


def _load_arrays(path):
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def _target_name(target):
    return {None: "dense", "2:4": "2-4"}.get(target, str(target))
