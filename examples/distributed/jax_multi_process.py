"""Pruning with JAX in several processes that share each kernel.

    python examples/distributed/jax_multi_process.py

This starts two processes on this machine. On a cluster, run the script once on each machine, with
the address of the first machine, their number, and the machine's own index: `... address:port 2 0`.
"""

import os
import socket
import subprocess
import sys

os.environ["KERAS_BACKEND"] = "jax"


def start_two():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # Each process has one device, on the CPU.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen([sys.executable, __file__, address, "2", str(index)], env=environment)
        for index in range(2)
    ]
    return max(abs(process.wait()) for process in processes)


if len(sys.argv) == 1:
    sys.exit(start_two())

import keras
import numpy as np

import keras_trim

address, count, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
keras.distribution.initialize(address, count, index)
mesh = keras.distribution.DeviceMesh((1, count), ("batch", "model"))
layout = keras.distribution.LayoutMap(mesh)
layout[".*kernel"] = (None, "model")
distribution = keras.distribution.ModelParallel(
    layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
)
keras.distribution.set_distribution(distribution)

rng = np.random.default_rng(0)  # all processes use the same batches, as the batch is not split
x = rng.standard_normal((512, 32), "float32")
y = (x @ rng.standard_normal((32, 8), "float32")).astype("float32")

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [keras.Input((32,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(8)]
)
schedule = keras_trim.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=24, frequency=4)
keras_trim.prune_low_magnitude(model, schedule)
model.compile("adam", "mse")
model.fit(x, y, epochs=4, batch_size=64, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])

# All processes must call these at the same point: together they count zeros and gather weights.
report = keras_trim.sparsity_report(model)
keras_trim.strip_pruning(model)
saved = keras_trim.save(model, "model.ktrim")  # the first process writes the file
if index == 0:
    print(report)
    print(f"model.ktrim: {saved.file_bytes:,} bytes")
