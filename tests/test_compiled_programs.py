"""What JAX compiles before the first training step. It takes a tenth of a second per program."""

import keras
import numpy as np
import pytest

import keras_trim

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="only JAX compiles a program for each operation"
)


def count_programs(num_layers, is_pruned):
    """Returns how many programs are compiled for a model whose kernels all differ in shape."""
    import jax

    jax.clear_caches()
    programs = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: programs.append(name) if "to_mlir_module" in name else None
    )
    model = keras.Sequential([keras.Input((4,))])
    for i in range(num_layers):
        model.add(keras.layers.Dense(8 + i))
    model.build()
    callbacks = []
    if is_pruned:
        keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5, 0))
        callbacks.append(keras_trim.UpdatePruningStep())
    model.compile("sgd", "mse")
    programs.clear()
    x, y = np.ones((8, 4), "float32"), np.ones((8, 7 + num_layers), "float32")
    model.fit(x, y, verbose=0, callbacks=callbacks)
    assert programs
    return len(programs)


def test_pruning_compiles_no_program_for_each_weight():
    few, many = (count_programs(n, True) - count_programs(n, False) for n in (2, 6))
    assert many == few
