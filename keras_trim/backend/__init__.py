"""What differs between JAX, TensorFlow and PyTorch in training: one module for each.

All three define the same names:

| name | what it does |
|---|---|
| `magnitude_bits`, `keep_largest` | the selection of weights, see `keras_trim.selection` |
| `outside_graph` | decorates what decides in Python which masks are due |
| `read_step` | the number of a step: an integer where it is known, else a tensor |
| `CATCHES_UP_EARLY` | whether updates that were skipped over can be done before a step |
| `LOOP_PER_WEIGHT` | function, whether a compiled step prunes each weight in a loop of its own |
| `run_if`, `opaque` | control flow of a compiled step |
| `update`, `zero`, `assign_last` | assignments, on every replica |
| `strategy_of`, `current_strategy`, `strategy_scope`, `end_step`, `placed_like` | replicas |
| `mask_initializer` | the first value of a mask |
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
