"""`UpdatePruningStep`, the callback that attaches pruning to `fit` and logs it."""

import math
import threading
import warnings
from typing import Any

import keras

from keras_trim import backend, callback_order
from keras_trim.annotations import is_built, marked_variables
from keras_trim.attachment import attach
from keras_trim.counting import count_zeros
from keras_trim.diagnostics import Run, has_pruned, warn_before_training
from keras_trim.finding import find_pruning_optimizer
from keras_trim.hosts import to_numpy
from keras_trim.report import warn_of_missed_targets
from keras_trim.schedules import is_known_ahead


class UpdatePruningStep(keras.callbacks.Callback):
    """Prunes the model that `fit` trains. Pass it to `fit` if a model is marked.

    When training begins, it wraps the model's optimizer in a `keras_trim.PruningOptimizer`. It
    shows `sparsity` (of the pruned weights) in the progress bar and the history, and warns if the
    schedule does not fit the planned training.

    It may be anywhere among the callbacks. Loggers and `EarlyStopping` always find `sparsity` in
    the logs. It also notices if `EarlyStopping(restore_best_weights=True)` restores weights from an
    epoch before `end_step`.

    Raises (when training begins):
        ValueError: if the model has no optimizer.

    Example:

    ```python
    keras_trim.prune_low_magnitude(model, keras_trim.PolynomialDecay(0.0, 0.8, 0, 1000))
    model.compile("adam", "mse")
    model.fit(x, y, callbacks=[keras_trim.UpdatePruningStep()])
    ```
    """

    # The code that runs per batch only reads schedules, so JAX need not wait for each step.
    async_safe = True

    def __init__(self) -> None:
        super().__init__()
        callback_order.install(lambda callback: isinstance(callback, UpdatePruningStep))
        self.front: keras.callbacks.Callback = _FirstOfCallbacks(self)
        # Own references, because reading `self.model` makes JAX hand over the state of the step.
        self._optimizers = []
        self._is_step_planned = self._is_step_counted = True
        self._batches_before = 0
        self._first_batch = None
        self._batches_per_step = 1
        self._is_checked = False
        self._is_end_told = False
        self._epochs_before = 0
        self._name = None

    def __repr__(self) -> str:
        return "UpdatePruningStep()"

    def set_model(self, model: keras.Model | None = None) -> None:
        if not isinstance(self, UpdatePruningStep):  # Keras calls it on the class then
            raise TypeError(
                "`callbacks` holds the class `UpdatePruningStep` in place of an instance: write "
                "`callbacks=[keras_trim.UpdatePruningStep()]`. Received: the class "
                "UpdatePruningStep"
            )
        super().set_model(model)
        self._optimizers = attach(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._optimizers:  # `model.optimizer` may have been set since `set_model`
            self._optimizers = attach(self.model)
        if not self._optimizers:
            self._tell_why_nothing_is_pruned()
            return
        self._is_checked = False
        self._is_step_planned = _takes_a_step_per_batch(self.model, self._optimizers)
        outer = getattr(self.model, "optimizer", None)
        is_scaled = isinstance(outer, keras.optimizers.LossScaleOptimizer)
        # Steps that overflow are skipped.
        self._is_step_counted = self._is_step_planned and not is_scaled
        for optimizer in self._optimizers:
            if self._is_step_counted and self.model.built and is_built(self.model):
                # On TensorFlow, `fit` would build it in the first step, after what is checked here.
                with backend.strategy_scope(optimizer.inner_optimizer):
                    optimizer.build(self.model.trainable_variables)
            optimizer.update_due_masks()

    def _tell_why_nothing_is_pruned(self):
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
            f"`UpdatePruningStep` has nothing to prune: {why} before `fit`.", stacklevel=3
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._optimizers:
            return
        if not self._is_checked:
            self._epochs_before = epoch
        if self._is_built:
            self._check(last_step(self._optimizers))
            for optimizer in self._optimizers:  # masks can be read here, even on JAX
                optimizer.read_masks(_read(optimizer.iterations))
        # With gradient accumulation, an epoch may begin or end in the middle of a step.
        inner = self._optimizers[0].inner_optimizer
        self._batches_before = _read(inner._iterations)
        self._batches_per_step = inner.gradient_accumulation_steps or 1
        self._first_batch = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._first_batch is None:  # not 0 in a resumed epoch
            self._first_batch = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._optimizers or not self._is_built or logs is None or self._is_logged(logs):
            return
        # On JAX, the state of the step is out of reach while Keras runs callbacks on another
        # thread. Any callback without `async_safe` prevents that; `self.model` then fetches it.
        is_state_here = (
            backend.BACKEND != "jax" or threading.current_thread() is threading.main_thread()
        )
        if is_state_here:
            _ = self.model
        if self._is_step_counted:
            # Compute the step: reading the optimizer's counter would make JAX wait.
            batches = self._batches_before + batch + 1 - (self._first_batch or 0)
            step = batches // self._batches_per_step
            self._log(logs, self._optimizers[0].scheduled_sparsity(step))
        elif is_state_here:
            self._log(logs, scheduled_sparsity(self._optimizers))

    def on_epoch_end(
        self, epoch: int | None = None, logs: dict[str, Any] | None = None, batch: int | None = None
    ) -> None:
        # TFMOT's guide passes the first argument by its old name, `batch`.
        self.log_epoch(logs)
        if self._optimizers and self._is_built:
            self._check(0)  # for a model that TensorFlow built in the first step

    def log_epoch(self, logs: dict[str, Any] | None) -> None:
        """Adds the measured sparsity to an epoch's logs, unless it is already there."""
        if self._optimizers and self._is_built and logs is not None and not self._is_logged(logs):
            self._log(logs, self._measured_sparsity())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._optimizers or not self._is_built:
            return
        step = last_step(self._optimizers)
        schedules = [s for optimizer in self._optimizers for s in optimizer.schedules]
        end = max((getattr(schedule, "end_step", -1) for schedule in schedules), default=-1)
        if step < end and self._is_end_told:
            return  # the warning was given when training began
        if step < end:
            warnings.warn(
                f"Training ended at step {step}, before the `end_step` {end} of the pruning "
                f"schedule; sparsity is {self._measured_sparsity():.2%}. Train on, or choose an "
                "earlier `end_step`.",
                stacklevel=2,
            )
        else:
            warn_of_missed_targets(self.model, "Training ended")
        for schedule in schedules:
            weights = [w for w in self._pruned_weights if w.spec.schedule is schedule]
            if not is_known_ahead(schedule) and not has_pruned(weights):
                why = "it never returned `should_prune` true with a sparsity above 0"
                if getattr(schedule, "starts_from_zeros", False):
                    why = "the weights had no zeros to keep. Prune them first, with `prune`"
                warnings.warn(
                    f"The pruning schedule has not pruned anything up to step {step}, where "
                    f"training ended: {why}. Received: {type(schedule).__name__}",
                    stacklevel=2,
                )

    @property
    def _is_built(self):
        return all(optimizer.built for optimizer in self._optimizers)

    @property
    def _pruned_weights(self):
        return [weight for optimizer in self._optimizers for weight in optimizer.pruned_weights]

    def _is_logged(self, logs):
        return self._name is not None and self._name in logs

    def _log(self, logs, sparsity):
        if self._name is None:  # the user may have a metric with that name
            self._name = "weight_sparsity" if "sparsity" in logs else "sparsity"
        logs[self._name] = sparsity

    def _measured_sparsity(self):
        variables = [weight.variable for weight in self._pruned_weights]
        return sum(count_zeros(variables)) / max(_size(self._pruned_weights), 1)

    def _check(self, start):
        if self._is_checked:
            return
        self._is_checked = True
        steps, epochs = [(self.params or {}).get(name) for name in ("steps", "epochs")]
        run = None
        if steps and epochs and self._is_step_planned:
            inner = self._optimizers[0].inner_optimizer
            epochs -= self._epochs_before
            end = start + steps * epochs // (inner.gradient_accumulation_steps or 1)
            run = Run(start, end, epochs)
        self._is_end_told = warn_before_training(self.model, self._optimizers, run)


class _FirstOfCallbacks(keras.callbacks.Callback):
    """Logs for an `UpdatePruningStep` before any other callback reads the logs."""

    async_safe = True

    def __init__(self, owner):
        super().__init__()
        self._owner = owner

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._owner.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._owner.log_epoch(logs)


def _takes_a_step_per_batch(model, optimizers):
    """Whether each batch of `fit` is one step: no optimizers or `train_step` of the model's own."""
    outer = getattr(model, "optimizer", None)
    is_plain = len(optimizers) == 1 and find_pruning_optimizer(outer) is optimizers[0]
    return is_plain and type(model).train_step is keras.Model.train_step


def last_step(optimizers):
    """Returns the largest number of steps that any of the `PruningOptimizer`s has taken."""
    return max(_read(optimizer.iterations) for optimizer in optimizers)


def scheduled_sparsity(optimizers):
    """Returns the sparsity that `PruningOptimizer`s have scheduled for all their weights."""
    sizes = [_size(optimizer.pruned_weights) for optimizer in optimizers]
    zeros = [
        optimizer.scheduled_sparsity(_read(optimizer.iterations)) * size
        for optimizer, size in zip(optimizers, sizes, strict=True)
    ]
    return sum(zeros) / max(sum(sizes), 1)


def _read(iterations):
    return int(to_numpy(iterations))


def _size(weights):
    return sum(math.prod(weight.variable.shape) for weight in weights)
