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
| `strategy_of`, `current_strategy`, `strategy_scope`, `end_step`, `placed_like` | replicas |
| `mask_initializer` | the initial value of a mask |
"""

import keras

BACKEND = keras.backend.backend()

if BACKEND == "jax":
    from keras_trim.backend.jax import *  # noqa: F403
elif BACKEND == "tensorflow":
    from keras_trim.backend.tensorflow import *  # noqa: F403
elif BACKEND == "torch":
    from keras_trim.backend.torch import *  # noqa: F403
else:

    def outside_graph(function):
        return function

    def __getattr__(name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError(
            "keras-trim prunes on the jax, tensorflow and torch backends. Set the environment "
            f"variable KERAS_BACKEND before importing keras. Received: {BACKEND}"
        )
