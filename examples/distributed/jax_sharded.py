"""Pruning on several devices with JAX: `DataParallel`, or `ModelParallel` with split weights.

    python examples/distributed/jax_sharded.py
    python examples/distributed/jax_sharded.py --split-weights

Eight virtual CPU devices stand in for eight GPUs or TPUs. On real devices, remove the line that
creates them.
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import keras
import numpy as np

import keras_trim

rng = np.random.default_rng(0)
x = rng.standard_normal((512, 32), "float32")
y = (x @ rng.standard_normal((32, 8), "float32")).astype("float32")

if "--split-weights" in sys.argv:
    mesh = keras.distribution.DeviceMesh((2, 4), ("batch", "model"))
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*kernel"] = (None, "model")
    distribution = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
else:
    distribution = keras.distribution.DataParallel()
keras.distribution.set_distribution(distribution)

model = keras.Sequential(
    [keras.Input((32,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(8)]
)
schedule = keras_trim.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=24, frequency=4)
keras_trim.prune_low_magnitude(model, schedule)
model.compile("adam", "mse")
model.fit(x, y, epochs=4, batch_size=64, verbose=2, callbacks=[keras_trim.UpdatePruningStep()])
print(keras_trim.sparsity_report(model))
for weight in model.optimizer.pruned_weights:
    print("weight", weight.variable.value.sharding.spec, "mask", weight.mask.value.sharding.spec)
keras_trim.strip_pruning(model)
