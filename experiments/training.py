"""Trains a task's dense network, and rows from its checkpoint with keras-trim or TFMOT."""

import time

import numpy as np

from experiments.library import Dataset, keras, sparsity


class Batches(Dataset):
    """The batches of a task. Each depends only on the seed, the epoch and its index."""

    def __init__(self, task, seed, epoch=0):
        super().__init__()
        self._task, self._seed, self._epoch = task, seed, epoch

    def __len__(self):
        return self._task.num_batches()

    def __getitem__(self, index):
        return self._task.batch(self._seed, self._epoch, index)

    def on_epoch_end(self):
        self._epoch += 1


class Progress(keras.callbacks.Callback):
    """Prints the progress of training and the time left, every 30 seconds by default."""

    def __init__(self, label, epochs, every=30.0):
        super().__init__()
        self._label, self._epochs, self._every = label, epochs, every
        self._start = self._printed = None
        self._epoch = self._done = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self._start is None:  # do not time the first step, which compiles
            self._start = self._printed = now
            return
        self._done += 1
        if now - self._printed < self._every:
            return
        self._printed = now
        steps = self.params["steps"]
        left = (self._epochs - self._epoch) * steps - batch - 1
        minutes = left * (now - self._start) / self._done / 60
        print(
            f"  {self._label}: epoch {self._epoch + 1} of {self._epochs}, step {batch + 1} of "
            f"{steps}, loss {float((logs or {}).get('loss', np.nan)):.3f}, "
            f"at most {minutes:.1f} minutes left",
            flush=True,
        )


class AllBut(sparsity.PruningPolicy):
    """Prunes all layers except one."""

    def __init__(self, name):
        self._name = name

    def allow_pruning(self, layer):
        return layer.name != self._name

    def ensure_model_supports_pruning(self, model):
        pass


def prune(model, target, schedule, dense_layer=None):
    """Prepares a model for pruning: marks its weights (keras-trim) or wraps its layers (TFMOT).

    Args:
        model: Keras model.
        target: Float, `"2:4"`, or `keras_trim.Allocation`.
        schedule: Dict of arguments for `PolynomialDecay`, without the sparsities.
        dense_layer: String. Name of a layer that stays dense, or `None`.

    Returns:
        The model to compile and train.
    """
    if hasattr(target, "sparsities"):
        for path, own in target.sparsities.items():
            decay = sparsity.PolynomialDecay(0.0, own, **schedule)
            sparsity.prune_low_magnitude(model.get_layer(path.split("/")[0]), decay)
        return model
    arguments = {"sparsity_m_by_n": (2, 4)} if target == "2:4" else {}
    if dense_layer:
        arguments["pruning_policy"] = AllBut(dense_layer)
    decay = sparsity.PolynomialDecay(0.0, 0.5 if target == "2:4" else target, **schedule)
    return sparsity.prune_low_magnitude(model, decay, **arguments)


def train_on(task, weights, target, seed, rate, dense_layer=None, checkpoints=None, label=""):
    """Trains a row from given weights, for the number of epochs in the task's settings.

    Args:
        task: `Task`.
        weights: List of arrays.
        target: Float (sparsity), `"2:4"`, `keras_trim.Allocation`, or `None` for dense.
        seed: Integer. Sets the order of examples and the dropout.
        rate: Float. Initial learning rate, followed by cosine decay to 0.
        dense_layer: String. Name of a layer that stays dense, or `None`.
        checkpoints: Path of the folder with checkpoints to resume from (keras-trim only), or
            `None`.
        label: String. What to call the row in progress messages.

    Returns:
        The trained Keras model, with pruning stripped.
    """
    reset(seed)
    model = task.build(keras)
    model.set_weights(weights)
    epochs = task.settings.epochs
    steps = epochs * task.num_batches()
    callbacks = []
    if target is not None:
        model = prune(model, target, task.settings.schedule(steps), dense_layer)
        callbacks.append(sparsity.UpdatePruningStep())
    compile_model(task, model, keras.optimizers.schedules.CosineDecay(rate, steps))
    callbacks.append(Progress(label, epochs))
    if checkpoints:
        callbacks.append(_checkpoint(checkpoints))
    model.fit(Batches(task, seed), epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return model if target is None else sparsity.strip_pruning(model)


def train_dense(task, seed, checkpoints, label=""):
    """Trains the dense network.

    The learning rate falls to 0 along a cosine.

    Returns:
        The Keras model, with the weights that had the best validation score.
    """
    settings = task.settings
    reset(seed)
    model = task.build(keras)
    task.initial_weights(model)
    steps = settings.dense_epochs * task.num_batches()
    compile_model(task, model, keras.optimizers.schedules.CosineDecay(settings.dense_rate, steps))
    callbacks = [
        Score(task),
        keras.callbacks.EarlyStopping(
            "val_score", patience=settings.dense_epochs, mode="max", restore_best_weights=True
        ),
        Progress(label, settings.dense_epochs),
        _checkpoint(checkpoints),
    ]
    model.fit(
        Batches(task, seed),
        epochs=settings.dense_epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    return model


class Score(keras.callbacks.Callback):
    """Adds the task's validation score to each epoch's logs."""

    def __init__(self, task):
        super().__init__()
        self._task = task

    def on_epoch_end(self, epoch, logs=None):
        score = self._task.score(self.model, "val")
        logs["val_score"] = score
        print(f"  epoch {epoch + 1}: validation {score:.2f}", flush=True)


def reset(seed):
    """Clears Keras's state and sets the seed. Checkpoints depend on newly counted layer names."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)


def compile_model(task, model, rate):
    settings = task.settings
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=settings.weight_decay, global_clipnorm=settings.clip_norm
    )
    model.compile(optimizer, task.loss(keras))


def _checkpoint(folder):
    from keras_trim import Checkpoint

    return Checkpoint(folder, every_seconds=60.0)
