"""The callback that writes checkpoints during `fit` and resumes from the newest one."""

import os
import time
import warnings
from typing import Any

import keras

from keras_trim import atomic
from keras_trim.arguments import described, is_integer, positive_integer, takes_named
from keras_trim.checkpoints import callback_states, files, processes, random_state, state
from keras_trim.checkpoints.data_position import DataPosition, find_fit
from keras_trim.storage.errors import FormatError
from keras_trim.storage.streams import import_zstandard

_trained_here = set()  # folders of the runs that this process has trained


class Checkpoint(keras.callbacks.Callback):
    """Writes checkpoints during `fit`. To resume training, start the same program again.

    The resumed run ends like one that was never interrupted: with the same weights, masks,
    optimizer state and logs, bit for bit if the backend is deterministic. A checkpoint therefore
    holds all variables of the model, its optimizer and its metrics, the states of random number
    generators, the epoch, and the position within the epoch. Resuming draws the batches that were
    already used again and drops them, so the rest come in the same order. This works for models
    with or without pruning.

    Each file is written under a temporary name and renamed when complete, so a process that is
    killed at any moment leaves the previous checkpoint intact. Checksums detect a damaged file; the
    previous checkpoint is then used, with a warning.

    Once training has ended, running the program again trains no further; with more `epochs` it
    continues. To start over, use another `directory`.

    Put this callback last. In runs of several processes, one process writes and all read.

    Args:
        directory: Path of a folder for this training run only. It is created if missing. `~` is
            the home folder.
        save_freq: `"epoch"` (default): save after each epoch. Integer: save after that many
            batches. `None`: save only by `every_seconds`. The end of training is always saved.
        every_seconds: Number or `None`. Also saves whenever this many seconds have passed. Only for
            runs of a single process.
        max_to_keep: Integer, at least 1. How many checkpoints to keep. The default of 2 leaves one
            to fall back on if the newest is damaged.

    Raises:
        ImportError: if `zstandard` is not installed.
        ValueError: if an argument is invalid. Raised by `fit` if the checkpoint belongs to another
            model or all checkpoints are damaged.
        OSError: raised by `fit` if the folder cannot be written to.

    Example:

    ```python
    model.compile("adam", "mse")
    callbacks = [keras_trim.UpdatePruningStep(), keras_trim.Checkpoint("checkpoints")]
    model.fit(x, y, epochs=10, callbacks=callbacks)
    ```
    """

    @takes_named
    def __init__(
        self,
        directory: str | os.PathLike[str],
        save_freq: str | int | None = "epoch",
        every_seconds: float | None = None,
        max_to_keep: int = 2,
    ) -> None:
        super().__init__()
        import_zstandard()
        if not isinstance(directory, (str, os.PathLike)) or not os.fspath(directory):
            raise ValueError(
                "`directory` must be the path of a folder, such as 'checkpoints'. "
                f"Received: directory={described(directory)}"
            )
        if "://" in os.fspath(directory):
            # As a path, it would be a local folder, which goes with the machine.
            raise ValueError(
                "`directory` must be a folder of the file system: mount the bucket, and give the "
                f"path where it is mounted. Received: directory={described(directory)}"
            )
        if save_freq not in ("epoch", None) and not (is_integer(save_freq) and save_freq > 0):
            raise ValueError(
                '`save_freq` must be "epoch", a positive integer (batches) or `None`. '
                f"Received: save_freq={save_freq!r}"
            )
        is_number = isinstance(every_seconds, (int, float)) and not isinstance(every_seconds, bool)
        if every_seconds is not None and not (is_number and every_seconds > 0):
            raise ValueError(
                "`every_seconds` must be a positive number or `None`. "
                f"Received: every_seconds={every_seconds!r}"
            )
        # Absolute, because the program may change its working directory while it trains.
        self.directory: str = os.path.abspath(os.path.expanduser(directory))
        self.save_freq = save_freq
        self.every_seconds = every_seconds
        self.max_to_keep: int = positive_integer(max_to_keep, "max_to_keep")
        self._position = None
        self._callbacks = []
        self._epoch = None  # the one that is being trained
        self._resumed = None  # the part of a checkpoint that is not restored yet
        self._damaged = set()
        self._saved_at = 0  # batches
        self._saved_time = 0.0

    def __repr__(self) -> str:
        return (
            f"Checkpoint({self.directory!r}, save_freq={self.save_freq!r}, "
            f"every_seconds={self.every_seconds!r}, max_to_keep={self.max_to_keep})"
        )

    # Called by `fit`

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        epoch_iterator, self._callbacks = find_fit()
        if self.every_seconds is not None and processes.is_one_of_several(model):
            raise ValueError(
                "In a run of several processes, all of them must save at the same step: use "
                f"`save_freq`. Received: every_seconds={self.every_seconds}"
            )
        why_unbuilt = _build(model, epoch_iterator)
        self._position = DataPosition(epoch_iterator, self._before_batch)
        self._epoch = None
        if processes.is_writer(model):
            atomic.remove_leftovers(self.directory)
        training = self._resumed = self._load(why_unbuilt)
        is_over = False
        if training is not None:
            # `fit` reads this next. A finished epoch is not trained again.
            is_over = training["is_stopped"] and self.params["epochs"] <= training["epochs"]
            model._initial_epoch = self.params["epochs"] if is_over else training["epoch"]
            is_over |= training["epoch"] >= self.params["epochs"]
        if processes.is_writer(model) and not is_over:
            files.make_folder(self.directory)  # fails now rather than after hours of training
        self._saved_at, self._saved_time = self._position.batches, time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        # Read by now. If it stayed, and this run were interrupted, the next `fit` would begin here.
        self.model._initial_epoch = None
        self._restore_callbacks()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        self._restore_callbacks()
        is_stopped = bool(model.stop_training)
        model._initial_epoch = None
        if self._resumed is not None:  # nothing was left to train
            self._resumed = None
            self._warn_of_finished_run()
            return
        if self._epoch is None:  # there were no epochs to train
            return
        _trained_here.add(self.directory)
        self._epoch += 1
        self._save(0, is_end=True, is_stopped=is_stopped)

    def _warn_of_finished_run(self):
        # A script that is run again finds its run finished, and goes on with its result.
        if self.directory in _trained_here:
            warnings.warn(
                "`fit` trained nothing: the run in this folder is finished, and its weights are in "
                "the model now. Give each run (each fold, each call of `fit`) a folder of its own, "
                f"or raise `epochs`. Received: directory={self.directory!r}, finished at epoch "
                f"{self.params['epochs']}",
                stacklevel=3,
            )

    def _before_batch(self, step):
        """Runs between two batches: the last one is complete, the next one has not begun."""
        if self._resumed is not None:
            metrics = {id(variable) for variable in self.model.metrics_variables}
            for variable, value in self._resumed["variables"]:
                # `fit` has reset the metrics, which is only right at the start of an epoch.
                if step > 0 and id(variable) in metrics:
                    variable.assign(value)
            self._resumed = None
            return
        batches = self._position.batches
        is_due = self.save_freq == "epoch" and step == 0
        if is_integer(self.save_freq):
            is_due = batches - self._saved_at >= self.save_freq
        if self.every_seconds is not None:
            is_due |= time.monotonic() - self._saved_time >= self.every_seconds
        if is_due and batches > self._saved_at:
            self._save(step)

    # Files

    def _save(self, step, is_end=False, is_stopped=False):
        model = self.model
        arrays = state.read_variables(model)
        states, arrays_of_callbacks = callback_states.read(self._callbacks)
        training = {
            "epoch": self._epoch,
            "epochs": self.params["epochs"],
            "is_stopped": is_stopped,
            "positions": processes.gather(self._position.state(step, is_end)),
            "global_seed": random_state.read_global_seed(),
            "callbacks": states,
        }
        batches = self._position.batches
        if processes.is_writer(model):
            path = files.write(self.directory, batches, arrays | arrays_of_callbacks, training)
            files.remove_older(self.directory, self.max_to_keep, self._damaged - {path})
            self._damaged = set()
        self._saved_at, self._saved_time = batches, time.monotonic()

    def _load(self, why_unbuilt):
        """Restores the newest intact checkpoint and returns its record of training, or `None`."""
        problems = []
        for path in files.find(self.directory):
            try:
                training = self._load_file(path, why_unbuilt)
            except (FormatError, OSError) as error:
                problems.append(f"{path.name}: {error}")
                if isinstance(error, FormatError):
                    self._damaged.add(path)
                continue
            if problems:
                warnings.warn(
                    f"{len(problems)} newer checkpoints cannot be read, so training resumes from "
                    f"{path.name}. Received: {'; '.join(problems)}",
                    stacklevel=3,
                )
            return training
        if problems:
            raise ValueError(
                "None of the checkpoints can be read. To start over, remove the folder. Received: "
                f"directory={self.directory} with {'; '.join(problems)}"
            )
        return None

    def _load_file(self, path, why_unbuilt):
        with files.reading(path) as (reader, training):
            if why_unbuilt is not None:
                raise ValueError(
                    "The folder holds a checkpoint, but its model could not be built: call the "
                    "model on a batch before `fit`. "
                    f"Received: model={self.model.name}, {why_unbuilt}"
                ) from why_unbuilt
            positions = training["positions"]
            is_as_before = len(positions) == processes.count()
            self._position.resume(positions[processes.index() if is_as_before else 0])
            training["arrays"] = callback_states.load_arrays(reader)
            training["variables"] = state.load_variables(reader, self.model)
            random_state.write_global_seed(training["global_seed"])
        return training

    def _restore_callbacks(self):
        """Restores the callbacks, after their `on_train_begin` has reset some of them."""
        if self._resumed is not None and "callbacks" in self._resumed:
            states = self._resumed.pop("callbacks")
            callback_states.write(self._callbacks, states, self._resumed["arrays"])


def _build(model, epoch_iterator):
    """Builds what TensorFlow would build in the first step. Returns the error, if there is one."""
    if keras.backend.backend() != "tensorflow":
        return None
    metrics, optimizer = model._compile_metrics, model.optimizer
    is_built = all(layer.built for layer in model._flatten_layers())
    if is_built and (metrics is None or metrics.built) and (optimizer is None or optimizer.built):
        return None
    try:
        batch = keras.tree.map_structure(
            lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name),
            epoch_iterator._distributed_dataset.element_spec,
        )
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=batch)
    except Exception as error:  # whatever the user's layers raise
        return error
    return None
