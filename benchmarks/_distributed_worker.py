"""Commands of `benchmarks.distributed`, which run in a process with one of Keras's backends."""

import contextlib
import os
import resource
import time
import warnings

BACKEND = os.environ["KERAS_BACKEND"]
if BACKEND == "tensorflow":  # devices must be created before anything else
    import tensorflow as tf

    half = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [half, half]
    )

import keras
import numpy as np

import keras_trim
from benchmarks._common import serve
from benchmarks._turns import take_turns

BATCH = 128


def _scope():
    """Where models are created: split over 8 devices on JAX, on 2 replicas on TensorFlow."""
    if BACKEND == "tensorflow":
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
    mesh = keras.distribution.DeviceMesh((1, 8), ("batch", "model"))
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*kernel"] = (None, "model")
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )
    return contextlib.nullcontext()


def train(width, frequency, block, windows):
    """Trains a dense and a pruned model in turns. Returns the seconds of each block."""
    rng = np.random.default_rng(0)
    steps = windows * frequency
    x = rng.standard_normal((BATCH, width), "float32")
    y = rng.standard_normal((BATCH, width), "float32")
    x, y = np.tile(x, (steps + 1, 1)), np.tile(y, (steps + 1, 1))
    scope, models = _scope(), {}
    with scope:
        for kind in ("dense", "pruned"):
            models[kind] = keras.Sequential(
                [keras.Input((width,)), *(keras.layers.Dense(width) for _ in range(3))]
            )
            if kind == "pruned":
                schedule = keras_trim.ConstantSparsity(0.8, 0, frequency=frequency)
                keras_trim.prune_low_magnitude(models[kind], schedule)
            jit = "auto" if BACKEND == "jax" else False
            models[kind].compile(keras.optimizers.Adam(), "mse", jit_compile=jit)

    def make_fit(kind):
        own = [keras_trim.UpdatePruningStep()] if kind == "pruned" else []
        return lambda stopwatch: models[kind].fit(
            x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[stopwatch, *own]
        )

    seconds = take_turns(keras.callbacks.Callback, {kind: make_fit(kind) for kind in models}, block)
    return {kind: times[1:] for kind, times in seconds.items()}  # the first block compiles


def first_step(weights, is_pruned):
    """Runs a model with this many kernels of different shapes. Returns a dict of measurements."""
    from jax import monitoring

    compiling = []
    monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: compiling.append(seconds) if "/compile/" in name else None
    )
    rng = np.random.default_rng(0)
    widths = [1000 + 2 * i for i in range(weights + 1)]

    def draw(shape, dtype=None):  # with NumPy: JAX compiles a program for each shape
        values = rng.standard_normal(shape, "float32") / np.sqrt(shape[0])
        return keras.ops.convert_to_tensor(values, dtype)

    layers = [
        keras.layers.Dense(width, "relu", use_bias=False, kernel_initializer=draw)
        for width in widths[1:]
    ]
    model = keras.Sequential([keras.Input((widths[0],)), *layers])
    x = rng.standard_normal((16, widths[0]), "float32")
    y = rng.standard_normal((16, widths[-1]), "float32")
    compiling.clear()
    start, finished = time.perf_counter(), []
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: finished.append(time.perf_counter())
        )
    ]
    if is_pruned:
        keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.8, 0))
        callbacks.append(keras_trim.UpdatePruningStep())
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=8, verbose=0, callbacks=callbacks)
    return {
        "compile_seconds": sum(compiling),
        "first_step_seconds": finished[0] - start,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "array_bytes": _array_bytes(model),
    }


def _array_bytes(model):
    """Returns the bytes of weights, momenta, masks, and the gradients of one step."""
    variables = [*model.variables, *model.optimizer.variables]
    gradients = sum(4 * int(np.prod(v.shape)) for v in model.trainable_variables)
    return sum(np.dtype(v.dtype).itemsize * int(np.prod(v.shape)) for v in variables) + gradients


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Training ended|The pruning schedule")
    serve(train, first_step)
