"""Pruning on several devices of one machine with TensorFlow: `MirroredStrategy`.

    python examples/distributed/tensorflow_mirrored.py

Two virtual CPUs stand in for two GPUs. On real devices, remove the lines that create them.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [half, half])

import keras

import keras_trim

rng = np.random.default_rng(0)
x = rng.standard_normal((512, 32), "float32")
y = (x @ rng.standard_normal((32, 1), "float32")).astype("float32")

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = keras.Sequential(
        [keras.Input((32,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
    )
    schedule = keras_trim.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=24, frequency=4)
    keras_trim.prune_low_magnitude(model, schedule)
    model.compile("adam", "mse", jit_compile=False)
# `fit` works inside or outside the scope.
model.fit(x, y, epochs=4, batch_size=64, verbose=2, callbacks=[keras_trim.UpdatePruningStep()])
print(keras_trim.sparsity_report(model))
keras_trim.strip_pruning(model)
