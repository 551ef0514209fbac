"""Keras callbacks: attach pruning to `fit`, and log it."""

import importlib.util
import math
import os
import warnings

import keras
from keras import ops

from keras_trim.attachment import attach
from keras_trim.counting import count_zeros, smallest_magnitudes
from keras_trim.guard import find_pruning_optimizer
from keras_trim.marks import is_to_be_pruned, marked_variables
from keras_trim.report import warn_of_missed_targets
from keras_trim.schedules import SteppedSchedule


class UpdatePruningStep(keras.callbacks.Callback):
    """Prunes the model that `fit` trains; to be passed to `fit` when a model is marked.

    It wraps the model's optimizer in a `keras_trim.PruningOptimizer` when training begins, shows
    `sparsity` (of the weights that are pruned) in the progress bar and the history, and warns if
    the schedule does not fit the training that `fit` announces.

    Put it last among the callbacks: then it also sees, and warns of, weights of an epoch before
    `end_step` that `EarlyStopping(restore_best_weights=True)` has brought back.

    Example:

    ```python
    keras_trim.prune_low_magnitude(model, keras_trim.PolynomialDecay(0.0, 0.8, 0, 1000))
    model.compile("adam", "mse")
    model.fit(x, y, callbacks=[keras_trim.UpdatePruningStep()])
    ```
    """

    # What runs per batch only reads schedules, so that JAX need not wait for each step.
    async_safe = True

    def __init__(self):
        super().__init__()
        # A reference of its own: reading `self.model` makes JAX hand over the state of the step.
        self._optimizer = None
        self._batches_before = 0
        self._batches_per_step = 1
        self._is_checked = False
        self._epochs_before = 0

    def set_model(self, model):
        super().set_model(model)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and is_to_be_pruned(model):
            attach(model)
        self._optimizer = find_pruning_optimizer(getattr(model, "optimizer", None))

    def on_train_begin(self, logs=None):
        if self._optimizer is None:
            if getattr(self.model, "optimizer", None) is None:
                raise ValueError(
                    "`UpdatePruningStep` needs a model with an optimizer: call `model.compile()`, "
                    "or set `model.optimizer`, first. Received: a model that has none."
                )
            if marked_variables(self.model):
                why = "all weights that are marked are frozen. Set `layer.trainable = True`"
            else:
                why = (
                    "no weight of this model is marked. Call "
                    "`keras_trim.prune_low_magnitude(model, ...)`"
                )
            warnings.warn(
                f"`UpdatePruningStep` has nothing to prune: {why} before `fit`.", stacklevel=2
            )
            return
        self._is_checked = False
        if self._optimizer.built:
            self._warn_of_revival()

    def on_epoch_begin(self, epoch, logs=None):
        if self._optimizer is None:
            return
        if not self._is_checked:
            self._epochs_before = epoch
            if self._optimizer.built:
                self._warn_of_misfit(self._step())
        if self._optimizer.built:  # where masks can be read, on JAX too
            self._optimizer.read_masks(self._step())
        # With gradient accumulation, an epoch may begin and end in the middle of a step.
        self._batches_before = int(ops.convert_to_numpy(self._inner_optimizer._iterations))
        self._batches_per_step = self._accumulation()

    def on_train_batch_end(self, batch, logs=None):
        # Counted, since JAX would have to wait for the optimizer's own count. (Where a
        # `LossScaleOptimizer` skips a step, the count is put right when the next epoch begins.)
        if self._optimizer is not None and self._optimizer.built and logs is not None:
            step = (self._batches_before + batch + 1) // self._batches_per_step
            logs["sparsity"] = self._optimizer.scheduled_sparsity(step)

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        # `batch`: TFMOT's name of the first argument, which its guide passes by name.
        if self._optimizer is not None and self._optimizer.built and logs is not None:
            logs["sparsity"] = self._measured_sparsity()
            if not self._is_checked:  # a model that TensorFlow built within the first step
                self._warn_of_misfit(0)

    def on_train_end(self, logs=None):
        if self._optimizer is None or not self._optimizer.built:
            return
        step = self._step()
        ends = [getattr(schedule, "end_step", -1) for schedule in self._optimizer.schedules]
        if step < max(ends, default=-1):
            warnings.warn(
                f"Training ended at step {step}, before the `end_step` {max(ends)} of the pruning "
                f"schedule; sparsity is {self._measured_sparsity():.2%}. Train on, or choose an "
                "earlier `end_step`.",
                stacklevel=2,
            )
        else:
            warn_of_missed_targets(self.model, "Training ended")
        for schedule in self._optimizer.schedules:
            if not isinstance(schedule, SteppedSchedule) and not self._has_pruned(schedule):
                warnings.warn(
                    f"The pruning schedule has not pruned anything up to step {step}, where "
                    "training ended: it never returned `should_prune` true with a sparsity above "
                    f"0. Received: {type(schedule).__name__}",
                    stacklevel=2,
                )

    def _step(self):
        return int(ops.convert_to_numpy(self._optimizer.iterations))

    @property
    def _inner_optimizer(self):
        return self._optimizer.inner_optimizer

    def _accumulation(self):
        return self._inner_optimizer.gradient_accumulation_steps or 1

    def _measured_sparsity(self):
        variables = [weight.variable for weight in self._optimizer.pruned_weights]
        size = sum(math.prod(variable.shape) for variable in variables)
        return sum(count_zeros(variables)) / size

    def _warn_of_misfit(self, start):
        self._is_checked = True
        self._warn_of_frozen()
        self._warn_of_schedule(start)

    def _warn_of_frozen(self):
        pruned = {id(weight.variable) for weight in self._optimizer.pruned_weights}
        left_out = [v.path for v in marked_variables(self.model) if id(v) not in pruned]
        if left_out:
            warnings.warn(
                f"{len(left_out)} weights that are marked for pruning are not trained, so they "
                f"stay as they are: {', '.join(left_out[:4])}{' ...' if left_out[4:] else ''}. Set "
                "`layer.trainable = True` and compile again, or mark other layers.",
                stacklevel=3,
            )

    def _warn_of_revival(self):
        """A target below the sparsity that is there would bring pruned weights back."""
        revived = []
        weights = self._optimizer.pruned_weights
        counts = count_zeros([weight.variable for weight in weights])
        masked = count_zeros([weight.mask for weight in weights])
        for weight, zeros, masked_zeros in zip(weights, counts, masked, strict=True):
            asked = [weight.spec.first_zeros, weight.spec.target_zeros]
            asked = min((zeros for zeros in asked if zeros is not None), default=None)
            size = math.prod(weight.variable.shape)
            if asked is not None and not masked_zeros and asked < zeros < size:
                revived.append(f"{weight.variable.path}: {zeros / size:.2%} > {asked / size:.2%}")
        if revived:
            warnings.warn(
                f"{len(revived)} weights are sparser already than the schedule asks for at its "
                f"beginning or end, so zeros may become non-zero again ({'; '.join(revived[:4])}"
                f"{' ...' if revived[4:] else ''}). Begin at the sparsity that is there: "
                "`initial_sparsity` (or `target_sparsity`) of at least that value.",
                stacklevel=3,
            )

    def _warn_of_schedule(self, start):
        params = self.params or {}
        steps, epochs = params.get("steps"), params.get("epochs")
        end = None
        if steps and epochs:
            batches = steps * (epochs - self._epochs_before)
            end = start + batches // self._accumulation()
        for schedule in self._optimizer.schedules:
            if not isinstance(schedule, SteppedSchedule):
                continue
            due_now = start == 0 and schedule.begin_step == 0
            following = 0 if due_now else schedule.next_update(start)
            if following is not None and (end is None or following <= end):
                continue
            if self._has_pruned(schedule):  # what was pruned before stays so
                continue
            if following is None:
                warnings.warn(
                    f"The pruning schedule ended at step {schedule.end_step}, but the optimizer is "
                    f"at step {start} already: nothing will be pruned. Compile the model anew to "
                    "count from 0, or shift the schedule.",
                    stacklevel=4,
                )
            else:
                warnings.warn(
                    f"The pruning schedule will not fire: its next update is at step {following}, "
                    f"but this `fit` goes from step {start} to {end}. Choose an earlier "
                    "`begin_step` or a smaller `frequency`, or train for more steps.",
                    stacklevel=4,
                )

    def _has_pruned(self, schedule):
        weights = self._optimizer.pruned_weights
        return any(count_zeros([w.mask for w in weights if w.spec.schedule is schedule]))


class PruningSummaries(keras.callbacks.TensorBoard):
    """Keras's `TensorBoard` callback, which also logs sparsity.

    For each pruned weight it writes `<path>/sparsity` (the fraction of zeros counted) and
    `<path>/threshold` (the smallest magnitude kept), and for all of them `sparsity/measured` and
    `sparsity/scheduled`, against the optimizer's step. As Keras's callback it needs the packages
    tensorboard and tensorflow, whatever the backend: `pip install "keras-trim[summaries]"`.

    Args:
        log_dir: Path. Where to write; see `keras.callbacks.TensorBoard`.
        update_freq: `"epoch"`, `"batch"` or an integer; see `keras.callbacks.TensorBoard`.
            Weights are counted once per epoch.
        **kwargs: Further arguments of `keras.callbacks.TensorBoard`.

    Raises:
        ImportError: if tensorboard or tensorflow is not installed.
    """

    def __init__(self, log_dir, update_freq="epoch", **kwargs):
        log_dir = os.fspath(log_dir) if isinstance(log_dir, os.PathLike) else log_dir
        if not isinstance(log_dir, str) or not log_dir:
            raise ValueError(f"`log_dir` must be a path. Received: log_dir={log_dir!r}")
        missing = [
            name for name in ("tensorboard", "tensorflow") if importlib.util.find_spec(name) is None
        ]
        if missing:
            raise ImportError(
                "`PruningSummaries` writes with TensorBoard: install it by "
                f'`pip install "keras-trim[summaries]"`. Not found: {", ".join(missing)}'
            )
        super().__init__(log_dir=log_dir, update_freq=update_freq, **kwargs)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        optimizer = find_pruning_optimizer(self.model.optimizer)
        if optimizer is None or not optimizer.built:
            return
        step = int(ops.convert_to_numpy(optimizer.iterations))
        zeros = size = 0
        variables = [weight.variable for weight in optimizer.pruned_weights]
        counts, thresholds = count_zeros(variables), smallest_magnitudes(variables)
        with self._train_writer.as_default():
            for variable, count, threshold in zip(variables, counts, thresholds, strict=True):
                path, count_all = variable.path, math.prod(variable.shape)
                self.summary.scalar(f"{path}/sparsity", count / count_all, step)
                self.summary.scalar(f"{path}/threshold", threshold, step)
                zeros, size = zeros + count, size + count_all
            self.summary.scalar("sparsity/measured", zeros / size, step)
            self.summary.scalar("sparsity/scheduled", optimizer.scheduled_sparsity(step), step)
            self._train_writer.flush()
