"""Training code that differs between JAX, TensorFlow and PyTorch, in one module per backend.

All three define the same names:

| name | what it does |
|---|---|
| `magnitude_bits`, `keep_largest` | selects weights; see `keras_trim.selection` |
| `outside_graph` | decorates functions that decide in Python which masks are due |
| `read_step` | the step number: an integer if known, else a tensor |
| `CATCHES_UP_EARLY` | whether skipped updates can run before a step |
| `loop_per_weight` | whether a compiled step prunes each weight in its own loop |
| `run_if`, `opaque` | control flow in a compiled step |
| `update`, `zero`, `assign_last` | assignments, on every replica |
| `strategy_of`, `current_strategy`, `strategy_scope`, `on_all_replicas`, `placed_like` | replicas |
| `mask_initializer` | the initial value of a mask |
| `as_state` | an array as the backend's own files hold it |
"""

import importlib

import keras

from keras_trim.backend import one_replica

BACKEND = keras.backend.backend()
_IS_SUPPORTED = BACKEND in ("jax", "tensorflow", "torch")

if _IS_SUPPORTED:
    _module = importlib.import_module(f"keras_trim.backend.{BACKEND}")
else:

    def outside_graph(function):
        return function


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    if not _IS_SUPPORTED:
        raise ValueError(
            "keras-trim prunes on the jax, tensorflow and torch backends. Set the environment "
            f"variable KERAS_BACKEND before importing keras. Received: {BACKEND}"
        )
    return getattr(_module if hasattr(_module, name) else one_replica, name)
