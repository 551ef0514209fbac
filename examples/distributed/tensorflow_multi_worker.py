"""Pruning in several processes with TensorFlow: `MultiWorkerMirroredStrategy`.

    python examples/distributed/tensorflow_multi_worker.py

This starts two processes on this machine. On a cluster, set `TF_CONFIG` on each machine and run the
script there. Keras's `fit` does not run under this strategy, with or without pruning, but a custom
loop does.
"""

import json
import os
import socket
import subprocess
import sys


def start_two():
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    workers = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(task), "KERAS_BACKEND": "tensorflow"}
        processes.append(subprocess.Popen([sys.executable, __file__], env=environment))
    return max(abs(process.wait()) for process in processes)


if "TF_CONFIG" not in os.environ:
    sys.exit(start_two())

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # must come first in TensorFlow

import keras
import numpy as np

import keras_trim

BATCH = 64  # for all processes together
rng = np.random.default_rng(0)
x = rng.standard_normal((512, 32), "float32")
y = (x @ rng.standard_normal((32, 1), "float32")).astype("float32")

keras.utils.set_random_seed(0)  # the same weights everywhere
with strategy.scope():
    model = keras.Sequential(
        [keras.Input((32,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
    )
    schedule = keras_trim.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=24, frequency=4)
    keras_trim.prune_low_magnitude(model, schedule)
    optimizer = keras_trim.PruningOptimizer(keras.optimizers.Adam())
    optimizer.build(model.trainable_variables)


def step(x, y):
    with tf.GradientTape() as tape:
        # The optimizer adds up the gradients of all processes.
        loss = tf.reduce_sum((model(x) - y) ** 2) / BATCH
    variables = model.trainable_variables
    optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
    return loss


@tf.function
def train_step(x, y):
    return strategy.reduce("SUM", strategy.run(step, args=(x, y)), axis=None)


data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).repeat(4)
for x_batch, y_batch in strategy.experimental_distribute_dataset(data):
    loss = train_step(x_batch, y_batch)
if strategy.cluster_resolver.task_id == 0:
    print(f"loss {float(loss):.3f}")
    print(keras_trim.sparsity_report(model))
