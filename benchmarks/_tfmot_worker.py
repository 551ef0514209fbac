"""Commands that run in a process with TFMOT and legacy Keras, as in `_keras_trim_worker`."""

import time

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_wrapper

from benchmarks import _memory, _models
from benchmarks._common import serve
from benchmarks._turns import take_turns

_state = {}


def _make_pruning(weight, sparsity):
    """Returns TFMOT's own object that computes the mask of a layer."""
    schedule = tfmot.sparsity.keras.ConstantSparsity(sparsity, 0, frequency=1)
    mask = tf.Variable(tf.ones_like(weight), trainable=False)
    threshold = tf.Variable(0.0, trainable=False)
    step = tf.Variable(1, dtype=tf.int64)
    return pruning_impl.Pruning(
        lambda: step, [(weight, mask, threshold)], schedule, (1, 1), "AVG"
    ), mask


def setup_mask(side, sparsity, path):
    weight = tf.constant(_models.random_weight(side))
    pruning, _ = _make_pruning(weight, sparsity)
    update = tf.function(pruning._update_mask)
    _state["update"] = lambda: update(weight)
    _, mask = _state["update"]()
    np.save(path, np.packbits(mask.numpy() != 0))


def time_mask():
    start = time.perf_counter()
    _state["update"]()
    return time.perf_counter() - start


def _prune(model, sparsity, frequency):
    schedule = tfmot.sparsity.keras.ConstantSparsity(sparsity, 0, frequency=frequency)
    return tfmot.sparsity.keras.prune_low_magnitude(model, schedule)


def setup_train(model_name, sparsity, frequency, batches, first):
    kinds = ("dense", "pruned") if first == "dense" else ("pruned", "dense")
    models = {kind: _models.build(keras, model_name) for kind in kinds}
    models["pruned"] = _prune(models["pruned"], sparsity, frequency)
    for model in models.values():
        _models.compile_model(keras, model)
    _state["models"] = models
    data = _models.make_data(model_name, batches)
    _state["data"] = {kind: _models.make_dataset(model_name, data) for kind in models}
    x, _ = _models.make_data(model_name, 1)
    return models["dense"].predict(x, verbose=0).tolist()


def train(block, steps):
    models, data = _state["models"], _state["data"]

    def make_fit(kind):
        own = [tfmot.sparsity.keras.UpdatePruningStep()] if kind == "pruned" else []
        return lambda stopwatch: models[kind].fit(
            data[kind], steps_per_epoch=steps + 1, verbose=0, callbacks=[stopwatch, *own]
        )

    seconds = take_turns(keras.callbacks.Callback, {kind: make_fit(kind) for kind in models}, block)
    return seconds, _sparsity(models["pruned"])


def _pruning_variables(model):
    layers = pruning_wrapper.collect_prunable_layers(model)
    return [variables for layer in layers for variables in layer.pruning_vars]


def _sparsity(model):
    masks = [mask.numpy() for _, mask, _ in _pruning_variables(model)]
    return 1 - float(sum(mask.sum() for mask in masks)) / sum(mask.size for mask in masks)


def time_first_step(model_name, is_pruned):
    data = _models.make_dataset(model_name, _models.make_data(model_name, 1))
    model = _models.build(keras, model_name)
    callbacks = []
    start = time.perf_counter()
    if is_pruned:
        model = _prune(model, 0.8, 100)
        callbacks.append(tfmot.sparsity.keras.UpdatePruningStep())
    _models.compile_model(keras, model)
    first = []
    callbacks.append(
        keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: first.append(time.perf_counter())
        )
    )
    model.fit(data, steps_per_epoch=1, verbose=0, callbacks=callbacks)
    return first[0] - start


def mask_bytes(model_name):
    variables = _pruning_variables(_prune(_models.build(keras, model_name), 0.8, 100))
    masks = sum(mask.numpy().nbytes for _, mask, _ in variables)
    thresholds = sum(threshold.numpy().nbytes for _, _, threshold in variables)
    return masks / sum(mask.numpy().size for _, mask, _ in variables), thresholds


def peak_memory(model_name, side):
    """Measures the memory of updating one weight and its mask the way TFMOT does in each step."""
    weight = tf.Variable(_models.random_weight(side))
    pruning, mask = _make_pruning(weight, 0.8)

    @tf.function
    def run():
        pruning.conditional_mask_update()
        pruning.weight_mask_op()

    for _ in range(2):
        run()
    size = weight.numpy().nbytes
    answer = _memory.peak_in_weights(run, lambda: weight + 1.0, size)
    if abs(1 - mask.numpy().mean() - 0.8) > 1e-4:
        raise ValueError("The update did not prune")
    return answer


if __name__ == "__main__":
    serve(setup_mask, time_mask, setup_train, train, time_first_step, mask_bytes, peak_memory)
