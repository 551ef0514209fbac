"""The same sparsity throughout."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_trim.arguments import takes_named
from keras_trim.schedules.base import SteppedSchedule


@keras.saving.register_keras_serializable(package="keras_trim")
class ConstantSparsity(SteppedSchedule):
    """The same sparsity throughout.

    Args:
        target_sparsity: Float in `[0, 1)`. The fraction of zeros.
        begin_step: Integer. The training step at which pruning begins. Default: the first.
        end_step: Integer. The last step at which masks are updated; after it they are fixed. `-1`
            (default) updates them until training ends.
        frequency: Integer. Masks are updated every `frequency` steps.

    Raises:
        ValueError: if a sparsity is outside `[0, 1)`, or steps are not integers or are out of
            order.
    """

    @takes_named
    def __init__(
        self,
        target_sparsity: float,
        begin_step: int = 0,
        end_step: int = -1,
        frequency: int = 100,
    ) -> None:
        self._set_steps(begin_step, end_step, frequency, True)
        self._validate_sparsity(target_sparsity, "target_sparsity")
        self.target_sparsity = float(target_sparsity)

    @property
    def final_sparsity(self):
        return self.target_sparsity

    @property
    def num_updates(self):
        return 1

    def update_step(self, index):
        return self.begin_step

    def update_index(self, step):
        return 0

    def sparsity_at(self, step):
        return self.target_sparsity

    def _sparsity(self, step):
        return ops.convert_to_tensor(self.target_sparsity, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            "target_sparsity": self.target_sparsity,
            "begin_step": self.begin_step,
            "end_step": self.end_step,
            "frequency": self.frequency,
        }
