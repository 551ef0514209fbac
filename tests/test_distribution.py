"""Masks on several replicas and shards, on this machine's CPU, in processes of their own."""

import os
import subprocess
import sys
import textwrap

import keras

PREAMBLE = """
import numpy as np, keras, keras_trim
rng = np.random.default_rng(0)
x, y = rng.standard_normal((64, 8), "float32"), rng.standard_normal((64, 4), "float32")

def train():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(4)])
    schedule = keras_trim.PolynomialDecay(0.0, 0.5, 0, 6, frequency=2)
    keras_trim.prune_low_magnitude(model, schedule)
    # Without XLA, whose programs cannot reach variables of a second virtual device on TensorFlow.
    jit = "auto" if keras.backend.backend() == "jax" else False
    model.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse", jit_compile=jit)
    callbacks = [keras_trim.UpdatePruningStep()]
    model.fit(x, y, epochs=2, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
    rows = keras_trim.sparsity_report(model).pruned_rows
    assert [row.zeros for row in rows] == [64, 32], rows
    return model

def assert_close(model, other):
    for mine, theirs in zip(model.variables, other.variables, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), atol=1e-6)

alone = train()
"""

CODE = {
    "jax": """
        distribution = keras.distribution
        distribution.set_distribution(distribution.DataParallel())
        assert_close(train(), alone)

        mesh = distribution.DeviceMesh((2, 2), ("batch", "model"))
        layout = distribution.LayoutMap(mesh)
        layout[".*dense.*kernel"] = (None, "model")
        parallel = distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
        distribution.set_distribution(parallel)
        model = train()
        assert_close(model, alone)
        for weight in model.optimizer.pruned_weights:
            assert weight.mask.value.sharding == weight.variable.value.sharding
            assert weight.mask.value.sharding.spec[1] == "model"
    """,
    "tensorflow": """
        import tensorflow as tf
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = train()
        assert_close(model, alone)
        for weight in model.optimizer.pruned_weights:
            for variable in (weight.variable, weight.mask):
                one, other = strategy.experimental_local_results(variable.value)
                np.testing.assert_array_equal(one.numpy(), other.numpy())
    """,
    # Keras on PyTorch has no distribution of its own; a process with one rank goes through DDP.
    "torch": """
        import torch
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1
        )
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(4)])
        schedule = keras_trim.PolynomialDecay(0.0, 0.5, 0, 6, frequency=2)
        keras_trim.prune_low_magnitude(model, schedule)
        optimizer = keras_trim.PruningOptimizer(keras.optimizers.Adam(0.01, use_ema=True))
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            for start in range(0, 64, 16):
                batch = slice(start, start + 16)
                loss = ((parallel(torch.tensor(x[batch])) - torch.tensor(y[batch])) ** 2).mean()
                model.zero_grad()
                loss.backward()
                optimizer.apply(
                    [v.value.grad for v in model.trainable_variables], model.trainable_variables
                )
        optimizer.finalize_variable_values(model.trainable_variables)
        with torch.no_grad():
            assert_close(model, alone)
    """,
}

SETUP = {
    "tensorflow": """
        import tensorflow as tf
        half = tf.config.LogicalDeviceConfiguration()
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [half, half])
    """,
}


def test_replicas_and_shards_agree_with_a_single_device(tmp_path):
    backend = keras.backend.backend()
    parts = ["import sys", SETUP.get(backend, ""), PREAMBLE, CODE[backend]]
    code = "\n".join(textwrap.dedent(part) for part in parts)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rendezvous")],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
