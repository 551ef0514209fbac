"""Commands that run in a process with keras-trim and one of Keras's backends."""

import time
import warnings

import keras
import numpy as np
from keras import ops

import keras_trim
from benchmarks import _memory, _models
from benchmarks._common import serve
from benchmarks._turns import take_turns
from keras_trim.selection import keep_largest

BACKEND = keras.backend.backend()
_state = {}


# Mask update of one large weight


def setup_mask(side, num_pruned, path):
    """Computes a mask once, for comparison, and saves it as packed bits."""
    weight = ops.convert_to_tensor(_models.random_weight(side))
    update = _compiled(lambda weight: keep_largest(weight, num_pruned))
    _state["update"] = lambda: _wait(update(weight))
    mask = ops.convert_to_numpy(_state["update"]())
    np.save(path, np.packbits(mask))


def time_mask():
    start = time.perf_counter()
    _state["update"]()
    return time.perf_counter() - start


def setup_partition(side, num_pruned, path):
    """Computes NumPy's answer by a full sort, which keeps the order of equal magnitudes."""
    weight = _models.random_weight(side)
    order = np.argsort(-np.abs(weight), axis=None, kind="stable")
    mask = np.zeros(weight.size, bool)
    mask[order[: weight.size - num_pruned]] = True
    np.save(path, np.packbits(mask))
    _state["partition"] = weight.ravel(), num_pruned


def time_partition():
    """Returns the time NumPy needs to find the threshold, without making a mask."""
    weight, num_pruned = _state["partition"]
    start = time.perf_counter()
    np.partition(np.abs(weight), num_pruned)
    return time.perf_counter() - start


# Training


def _data(model_name, batches):
    data = _models.make_data(model_name, batches)
    if BACKEND == "tensorflow":
        return _models.make_dataset(model_name, data)
    return _models.repeat_batches(model_name, data)


def setup_train(model_name, sparsity, frequency, batches, first):
    """Builds both models, `first` first. Returns the dense model's output for a batch."""
    kinds = ("dense", "pruned") if first == "dense" else ("pruned", "dense")
    models = {kind: _models.build(keras, model_name) for kind in kinds}
    schedule = keras_trim.ConstantSparsity(sparsity, 0, frequency=frequency)
    keras_trim.prune_low_magnitude(models["pruned"], schedule)
    for model in models.values():
        _models.compile_model(keras, model)
    _state["models"] = models
    _state["data"] = {kind: _data(model_name, batches) for kind in models}
    x, _ = _models.make_data(model_name, 1)
    return models["dense"].predict(x, verbose=0).tolist()


def train(block, steps):
    """Trains both models in turns. Returns the seconds of each block, and the zeros."""
    models, data = _state["models"], _state["data"]

    def make_fit(kind):
        own = [keras_trim.UpdatePruningStep()] if kind == "pruned" else []
        return lambda stopwatch: models[kind].fit(
            data[kind],
            steps_per_epoch=steps + 1,
            shuffle=False,
            verbose=0,
            callbacks=[stopwatch, *own],
        )

    seconds = take_turns(keras.callbacks.Callback, {kind: make_fit(kind) for kind in models}, block)
    return seconds, keras_trim.sparsity_report(models["pruned"]).sparsity


def time_first_step(model_name, is_pruned):
    """Returns the seconds from a built model to the end of its first step, compiling included."""
    data = _data(model_name, 1)
    model = _models.build(keras, model_name)
    callbacks = []
    start = time.perf_counter()
    if is_pruned:
        keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.8, 0))
        callbacks.append(keras_trim.UpdatePruningStep())
    _models.compile_model(keras, model)
    first = []
    callbacks.append(
        keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: first.append(time.perf_counter())
        )
    )
    model.fit(data, steps_per_epoch=1, shuffle=False, verbose=0, callbacks=callbacks)
    return first[0] - start


# Memory


class Still(keras.optimizers.Optimizer):
    """An optimizer that changes nothing, so that any extra memory is due to pruning."""

    def __init__(self):
        super().__init__(learning_rate=0.0)

    def update_step(self, gradient, variable, learning_rate):
        pass


def mask_bytes(model_name):
    """Returns the bytes per pruned weight that grow with the model, and the bytes that do not."""
    model = _models.build(keras, model_name)
    keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.8, 0))
    optimizer = keras_trim.PruningOptimizer(keras.optimizers.Adam())
    optimizer.build(model.trainable_variables)
    inner = {id(variable) for variable in optimizer.inner_optimizer.variables}
    own = [ops.convert_to_numpy(v) for v in optimizer.variables if id(v) not in inner]
    num_pruned = sum(np.prod(weight.variable.shape) for weight in optimizer.pruned_weights)
    masks = sum(values.nbytes for values in own if values.ndim)
    return masks / int(num_pruned), sum(values.nbytes for values in own if not values.ndim)


def peak_memory(model_name, side):
    """Measures the temporary memory of a mask update.

    The update is that of `PruningOptimizer.apply`, compiled as `fit` compiles it, around an
    optimizer that changes nothing. Every step updates the masks.

    Args:
        model_name: String, or `None` for one dense layer with `side` x `side` weights.
        side: Integer.

    Returns:
        Dict of sizes in units of the largest weight's bytes. `grown` is the growth that the
        kernel reports, and `control` the growth that it reports for one tensor of that size. On
        JAX, `planned` is what XLA reserves for temporary and output buffers, including those of
        branches that do not run.
    """
    model = _models.build(keras, model_name) if model_name else _one_layer(side)
    keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.8, 0, frequency=1))
    optimizer = keras_trim.PruningOptimizer(Still())
    optimizer.build(model.trainable_variables)
    weights = model.trainable_variables
    largest = 4 * max(int(np.prod(weight.shape)) for weight in weights)
    model.compile(optimizer)
    run, planned = _compiled_apply(optimizer, weights, model.jit_compile)
    for _ in range(2):  # the first one compiles
        run()
    tensor = ops.ones(largest // 4)
    answer = _memory.peak_in_weights(run, lambda: _wait(ops.add(tensor, 1.0)), largest)
    if planned is not None:
        answer["planned"] = planned / largest
    zeros = [int(np.sum(ops.convert_to_numpy(w.variable) == 0)) for w in optimizer.pruned_weights]
    asked = [w.spec.target_zeros for w in optimizer.pruned_weights]
    if zeros != asked:
        raise ValueError(f"The update did not prune: {zeros} zeros instead of {asked}")
    return answer


def _one_layer(side):
    model = keras.Sequential([keras.Input((side,)), keras.layers.Dense(side, use_bias=False)])
    model.set_weights([_models.random_weight(side)])
    return model


def _compiled_apply(optimizer, weights, jit_compile):
    gradients = [ops.zeros(weight.shape) for weight in weights]
    if BACKEND == "jax":
        import jax

        def arguments():
            return [v.value for v in optimizer.variables], gradients, [v.value for v in weights]

        step = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
        memory = step.lower(*arguments()).compile().memory_analysis()
        new_outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes

        def run():
            moved, variables = step(*arguments())
            for weight, value in zip(weights, moved, strict=True):
                weight.assign(value)
            for variable, value in zip(optimizer.variables, variables, strict=True):
                variable.assign(value)
            jax.block_until_ready(moved)

        return run, memory.temp_size_in_bytes + new_outputs
    if BACKEND == "tensorflow":
        import tensorflow as tf

        step = tf.function(
            lambda: optimizer.apply(gradients, weights), jit_compile=jit_compile, autograph=False
        )
        return step, None
    return lambda: optimizer.apply(gradients, weights), None


def _compiled(function):
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def _wait(tensor):
    if BACKEND == "jax":
        tensor.block_until_ready()
    return tensor


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Training ended|The pruning schedule")
    serve(
        setup_mask,
        time_mask,
        setup_partition,
        time_partition,
        setup_train,
        train,
        time_first_step,
        mask_bytes,
        peak_memory,
    )
