"""Sparsity that rises to its final value, fast at first."""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
from keras import ops

from keras_trim.arguments import described, is_integer, positive_integer, takes_named
from keras_trim.epochs import count_steps
from keras_trim.schedules.base import SteppedSchedule

# How often masks are updated while the sparsity rises, if `for_epochs` decides. More updates have
# not been seen to help, and fewer make larger jumps.
_UPDATES_OF_RAMP = 32
_MOST_STEPS_BETWEEN = 100


@keras.saving.register_keras_serializable(package="keras_trim")
class PolynomialDecay(SteppedSchedule):
    """Sparsity that rises fast at first, then ever more slowly, to `final_sparsity`.

    At step `t` between `begin_step` and `end_step` it is

        final + (initial - final) * (1 - (t - begin_step) / (end_step - begin_step)) ** power

    (Zhu and Gupta, "To prune, or not to prune", https://arxiv.org/abs/1710.01878, section 3,
    equation 1, which has `power=3`).

    Args:
        initial_sparsity: Float in `[0, 1)`. The sparsity at the beginning.
        final_sparsity: Float in `[0, 1)`. The sparsity at the end.
        begin_step: Integer. The training step at which pruning begins. Default: the first.
        end_step: Integer. The step at which `final_sparsity` is reached, for any `frequency`. It is
            required; `for_epochs` computes it.
        power: Number. The exponent; 1 is linear.
        frequency: Integer. Masks are updated every `frequency` steps.

    Raises:
        ValueError: if a sparsity is outside `[0, 1)`, steps are not integers or are out of order,
            or `power` is not positive.
    """

    @takes_named
    def __init__(
        self,
        initial_sparsity: float,
        final_sparsity: float,
        begin_step: int = 0,
        end_step: int | None = None,
        power: float = 3,
        frequency: int = 100,
    ) -> None:
        if end_step is None:
            raise ValueError(
                "`end_step` is missing, the training step at which `final_sparsity` is reached. "
                f"`PolynomialDecay.for_epochs({final_sparsity}, epochs=10, data=x)` counts the "
                "steps of your data. Received: end_step=None"
            )
        self._set_steps(begin_step, end_step, frequency, False)
        self._validate_sparsity(initial_sparsity, "initial_sparsity")
        self._validate_sparsity(final_sparsity, "final_sparsity")
        if not isinstance(power, numbers.Real) or not power > 0:
            raise ValueError(f"`power` must be a positive number. Received: power={power!r}")
        # NumPy computes in the precision of its scalars: other counts than after saving.
        self.initial_sparsity = float(initial_sparsity)
        self.final_sparsity = float(final_sparsity)
        self.power = int(power) if is_integer(power) else float(power)

    @classmethod
    def for_epochs(
        cls,
        final_sparsity: float,
        epochs: int,
        data: Any,
        batch_size: int | None = None,
        *,
        initial_sparsity: float = 0.0,
        first_epoch: int = 0,
        ramp: float = 0.5,
        power: float = 3,
        gradient_accumulation_steps: int | None = 1,
    ) -> PolynomialDecay:
        """Makes the schedule for a run that is given in epochs.

        Args:
            final_sparsity: Float in `[0, 1)`. The sparsity at the end.
            epochs: Integer. As in `fit`: the total number of epochs.
            data: The data for `fit`, whose batches are counted: an array, nested arrays, or a
                dataset or loader that has a length. Or an integer, the number of batches in an
                epoch. (With `validation_split`, pass the integer.)
            batch_size: Integer. As in `fit`, 32 by default. Only for arrays.
            initial_sparsity: Float in `[0, 1)`. The sparsity at the beginning.
            first_epoch: Integer. The number of epochs to train before pruning begins.
            ramp: Float in `(0, 1]`. The fraction of the other epochs in which the sparsity rises.
                In the rest, the network adapts.
            power: Number. As in the constructor.
            gradient_accumulation_steps: Integer or `None` (1). As in the optimizer.

        Returns:
            `PolynomialDecay`, counted from a newly compiled model.

        Raises:
            ValueError: if the data's batches cannot be counted, or an argument is out of range or
                not an integer.

        Example:

        ```python
        schedule = keras_trim.PolynomialDecay.for_epochs(0.8, epochs=4, data=x, batch_size=64)
        keras_trim.prune_low_magnitude(model, schedule)
        model.compile("adam", loss)
        model.fit(x, y, epochs=4, batch_size=64, callbacks=[keras_trim.UpdatePruningStep()])
        ```
        """
        steps = count_steps(data, batch_size)
        epochs = positive_integer(epochs, "epochs")
        if not isinstance(ramp, numbers.Real) or not 0 < ramp <= 1:
            raise ValueError(
                "`ramp` is the part of the epochs in which the sparsity rises and must lie in "
                f"(0, 1]: 0.5 for the first half. Received: ramp={described(ramp)}"
            )
        if not is_integer(first_epoch) or not 0 <= first_epoch < epochs:
            raise ValueError(
                "`first_epoch` must be an integer, at least 0 and below `epochs`, the number of "
                f"all epochs. Received: first_epoch={described(first_epoch)}, epochs={epochs}"
            )
        accumulated = 1 if gradient_accumulation_steps is None else gradient_accumulation_steps
        accumulated = positive_integer(accumulated, "gradient_accumulation_steps")
        begin = first_epoch * steps // accumulated
        span = (epochs - first_epoch) * steps // accumulated
        end = begin + max(math.ceil(span * ramp), 1)
        frequency = min(max((end - begin) // _UPDATES_OF_RAMP, 1), _MOST_STEPS_BETWEEN)
        return cls(initial_sparsity, final_sparsity, begin, end, power, frequency)

    def sparsity_at(self, step):
        if step >= self.end_step:
            return self.final_sparsity
        progress = max(step - self.begin_step, 0) / max(self.end_step - self.begin_step, 1)
        left = (1.0 - progress) ** self.power
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * left

    def _sparsity(self, step):
        passed = ops.cast(ops.maximum(step - self.begin_step, 0), "float32")
        progress = ops.minimum(passed / max(self.end_step - self.begin_step, 1), 1.0)
        progress = ops.where(step >= self.end_step, 1.0, progress)
        left = ops.power(1.0 - progress, float(self.power))
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * left

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_sparsity": self.initial_sparsity,
            "final_sparsity": self.final_sparsity,
            "begin_step": self.begin_step,
            "end_step": self.end_step,
            "power": self.power,
            "frequency": self.frequency,
        }
