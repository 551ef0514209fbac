"""A schedule that keeps existing zeros and adds none."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_trim.schedules.base import PruningSchedule


@keras.saving.register_keras_serializable(package="keras_trim")
class KeepZeros(PruningSchedule):
    """Keeps the zeros that a model has when pruning begins, and adds none.

    It begins with the first step, or when the `keras_trim.Pruner` is made.

    Use it to continue training a model that was pruned by `keras_trim.prune` or otherwise, whatever
    the sparsity of each weight. Every zero stays zero.

    Example:

    ```python
    keras_trim.prune(model, 0.9, calibration_data=x)
    keras_trim.prune_low_magnitude(model, keras_trim.KeepZeros())
    model.compile("adam", loss)
    model.fit(x, y, callbacks=[keras_trim.UpdatePruningStep()])
    ```
    """

    starts_from_zeros = True  # masks start from existing zeros

    def __call__(self, step):
        return ops.cast(ops.zeros_like(step), "bool"), ops.zeros((), "float32")

    def get_config(self) -> dict[str, Any]:
        return {}
