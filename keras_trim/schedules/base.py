"""Pruning schedules: for each training step, whether to prune now and how sparse."""

from __future__ import annotations

import abc
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras import ops

from keras_trim.arguments import described, is_integer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PruningSchedule(abc.ABC):
    """For each training step, says whether to update masks and which sparsity to reach.

    Subclass it to write your own. Implement `__call__` and `get_config`, using `keras.ops` on the
    step so that it can run inside a compiled training step. Decorate the class with
    `@keras.saving.register_keras_serializable()` so that models saved during pruning load again.

    The rest of the package reads these attributes if a schedule has them: `begin_step` and
    `end_step` (to warn if training ends too early) and `final_sparsity` (to check the result; N:M
    patterns need it).

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    class Linear(keras_trim.PruningSchedule):
        def __init__(self, final_sparsity, end_step):
            self.final_sparsity = final_sparsity
            self.end_step = end_step

        def __call__(self, step):
            progress = keras.ops.cast(step, "float32") / self.end_step
            should_prune = keras.ops.equal(step % 10, 0)
            return should_prune, self.final_sparsity * keras.ops.minimum(progress, 1.0)

        def get_config(self):
            return {"final_sparsity": self.final_sparsity, "end_step": self.end_step}
    ```
    """

    @abc.abstractmethod
    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Evaluates the schedule.

        Args:
            step: Scalar integer tensor: the number of finished optimizer steps. (0 means before the
                first step; an update due at 0 happens in the first step.)

        Returns:
            A tuple `(should_prune, sparsity)`: a scalar bool tensor and a scalar float tensor, the
            fraction of weights that should be zero, in `[0, 1)`.
        """

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor as a dict."""

    def __repr__(self) -> str:
        try:
            arguments = self.get_config().items()
        except Exception:  # the class is incomplete: its repr must not hide its error
            return object.__repr__(self)
        return f"{type(self).__name__}({', '.join(f'{name}={v!r}' for name, v in arguments)})"

    def plot(
        self,
        num_steps: int | None = None,
        steps_per_epoch: int | None = None,
        reached: Sequence[float] | None = None,
    ) -> Figure:
        """Draws the sparsity over the steps of training.

        Args:
            num_steps: Integer. Steps of the whole run. Default: the schedule's length plus a
                quarter.
            steps_per_epoch: Integer. If given, draws the ends of epochs.
            reached: Floats, one per epoch, such as `history.history["sparsity"]`: the measured
                sparsity. Needs `steps_per_epoch`.

        Returns:
            `matplotlib.figure.Figure`: `.savefig("schedule.png")`, or the last line of a cell.

        Raises:
            ImportError: if Matplotlib is not installed.
            ValueError: if `num_steps` is missing and the schedule has no end.
        """
        from keras_trim.plots.schedule import schedule_figure

        return schedule_figure(self, num_steps, steps_per_epoch, reached)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PruningSchedule:
        if set(config) == {"class_name", "config"}:  # TFMOT's format
            config = config["config"]
        return cls(**config)

    # The helpers below have the names that subclasses of TFMOT's schedules call.

    def _should_prune_in_step(self, step, begin_step, end_step, frequency):
        """Bool (tensor): whether a step is in range, and on the `frequency` grid or `end_step`."""
        if isinstance(step, numbers.Integral):
            in_range = step >= begin_step and (end_step < 0 or step <= end_step)
            return in_range and ((step - begin_step) % frequency == 0 or step == end_step)
        on_grid = ops.equal(ops.mod(step - begin_step, frequency), 0)
        should_prune = ops.logical_and(step >= begin_step, on_grid)
        if end_step >= 0:
            should_prune = ops.logical_and(should_prune, step <= end_step)
            should_prune = ops.logical_or(should_prune, ops.equal(step, end_step))
        return should_prune

    def _validate_step(self, begin_step, end_step, frequency, allow_negative_1):
        for name, value in (
            ("begin_step", begin_step),
            ("end_step", end_step),
            ("frequency", frequency),
        ):
            if not is_integer(value):
                raise ValueError(
                    f"`{name}` counts training steps and must be an integer; round it with "
                    f"`int(...)`. Received: {name}={described(value)}"
                )
            if int(value) >= 2**31:
                raise ValueError(
                    f"`{name}` must be below 2**31, because optimizers count steps in 32 bits. "
                    f"Received: {name}={value}"
                )
        if begin_step < 0:
            raise ValueError(f"`begin_step` must be at least 0. Received: begin_step={begin_step}")
        if end_step == -1 and not allow_negative_1:
            raise ValueError(
                "`end_step` must be the step at which `final_sparsity` is reached; it cannot be "
                f"-1 (never). Received: end_step={end_step}"
            )
        if end_step != -1 and end_step < begin_step:
            raise ValueError(
                "`end_step` must not come before `begin_step`"
                + (" (or be -1: never end)" if allow_negative_1 else "")
                + f". Received: begin_step={begin_step}, end_step={end_step}"
            )
        if frequency < 1:
            raise ValueError(f"`frequency` must be at least 1. Received: frequency={frequency}")

    def _validate_sparsity(self, sparsity, variable_name):
        validate_sparsity(sparsity, variable_name)


def validate_sparsity(sparsity: object, name: str) -> None:
    """Raises `ValueError` unless `sparsity`, an argument called `name`, is a number in `[0, 1)`."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, numbers.Real):
        raise ValueError(
            f"`{name}` must be a number in [0, 1), the fraction of weights set to zero: 0.8 for "
            f"80 %. Received: {name}={described(sparsity)}"
        )
    if not 0.0 <= sparsity < 1.0:
        percent = sparsity if 1 < sparsity < 100 else 80
        raise ValueError(
            f"`{name}` is the fraction of weights set to zero and must lie in [0, 1), so "
            f"{percent / 100:g} for {percent:g} %. Received: {name}={sparsity}"
        )


def is_known_ahead(schedule: PruningSchedule) -> bool:
    """Whether a schedule is a `SteppedSchedule` whose steps no subclass decides by itself."""
    kind = type(schedule)
    return (
        isinstance(schedule, SteppedSchedule)
        and kind.__call__ is SteppedSchedule.__call__
        and kind._should_prune_in_step is PruningSchedule._should_prune_in_step
    )


class SteppedSchedule(PruningSchedule):
    """A schedule that fires at `begin_step`, every `frequency` steps after it, and at `end_step`.

    Its sparsity is known ahead for every step, in float64. So the counts of weights to prune are
    computed exactly on the host, and the compiled step only looks them up.
    """

    def _set_steps(self, begin_step, end_step, frequency, allow_negative_1):
        self._validate_step(begin_step, end_step, frequency, allow_negative_1)
        # NumPy's integers would wrap around at the ends of their range: unsigned ones below 0.
        self.begin_step = int(begin_step)
        self.end_step = int(end_step)
        self.frequency = int(frequency)

    @abc.abstractmethod
    def sparsity_at(self, step):
        """Float: the sparsity to reach at the Python integer `step`."""

    def __call__(self, step):
        should_prune = self._should_prune_in_step(
            step, self.begin_step, self.end_step, self.frequency
        )
        if isinstance(step, numbers.Integral):
            return should_prune, self.sparsity_at(int(step))
        return should_prune, self._sparsity(step)

    @abc.abstractmethod
    def _sparsity(self, step):
        """Float32 tensor: the same for a scalar integer tensor."""

    @property
    def num_updates(self):
        """The number of distinct sparsities that the schedule goes through."""
        return -(-(self.end_step - self.begin_step) // self.frequency) + 1

    def update_step(self, index):
        """Returns the step of the update with this index, `0 <= index < num_updates`."""
        return min(self.begin_step + index * self.frequency, self.end_step)

    def next_update(self, step):
        """Returns the first step after `step` at which masks are updated, or `None`."""
        if step < self.begin_step:
            return self.begin_step
        following = step + self.frequency - (step - self.begin_step) % self.frequency
        if self.end_step < 0:
            return following
        return min(following, self.end_step) if step < self.end_step else None

    def latest_update(self, step):
        """Returns the step of the last update up to and including `step`, or -1 if there is none.

        Both are integers or scalar integer tensors.
        """
        passed = step - self.begin_step
        if isinstance(step, numbers.Integral):
            if self.end_step >= 0 and step >= self.end_step:
                return self.end_step
            return step - passed % self.frequency if passed >= 0 else -1
        latest = ops.where(passed >= 0, step - ops.mod(passed, self.frequency), -1)
        if self.end_step >= 0:
            latest = ops.where(step >= self.end_step, self.end_step, latest)
        return latest

    def update_index(self, step):
        """Returns the index of the latest update at `step`, an integer (or scalar tensor)."""
        last = self.num_updates - 1
        if isinstance(step, numbers.Integral):
            if step >= self.end_step:
                return last
            return max(step - self.begin_step, 0) // self.frequency
        passed = ops.floor_divide(ops.maximum(step - self.begin_step, 0), self.frequency)
        return ops.where(step >= self.end_step, last, passed)
