"""Plots a schedule as a curve over its run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_trim.arguments import described
from keras_trim.plots.style import (
    BLUE,
    GRAY,
    GRID,
    ORANGE,
    clear_spines,
    format_percent,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_EPOCHS = 60  # more lines could not be told apart


def schedule_figure(
    schedule: Any,  # naming its type would import what calls this, `schedule.plot`
    num_steps: int | None = None,
    steps_per_epoch: int | None = None,
    reached: Sequence[float] | None = None,
) -> "Figure":
    """Draws the sparsity that a schedule asks for over the steps of training.

    Args:
        schedule: `keras_trim.PruningSchedule` with a `sparsity_at`, like those of this package.
        num_steps: Integer. Steps of the whole run. Default: the schedule's length plus a quarter.
        steps_per_epoch: Integer. If given, draws the ends of epochs.
        reached: Floats, one per epoch: the measured sparsity. Needs `steps_per_epoch`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: if Matplotlib is not installed.
        ValueError: if `num_steps` is missing and the schedule has no end, or it cannot be drawn.
    """
    if not hasattr(schedule, "update_step"):
        raise ValueError(
            "`schedule` must be a `PolynomialDecay` or a `ConstantSparsity`: what others ask for "
            f"is known only during training. Received: schedule={described(schedule)}"
        )
    if reached is not None and not steps_per_epoch:
        raise ValueError(
            "`reached` has a value for each epoch: give `steps_per_epoch`, too. "
            f"Received: reached={described(reached)}, steps_per_epoch={steps_per_epoch}"
        )
    if num_steps is None and schedule.end_step < 0 and reached is None:
        raise ValueError(
            "The schedule has no end: give `num_steps`, the steps of the run. "
            "Received: num_steps=None, end_step=-1"
        )
    if num_steps is None:
        over = len(reached) * steps_per_epoch if reached is not None else 0
        num_steps = max(over, schedule.end_step + max(schedule.end_step // 4, 1))
    figure = new_figure((6.4, 3.6))
    ax = figure.subplots()
    if steps_per_epoch and num_steps / steps_per_epoch <= _MOST_EPOCHS:
        for step in range(steps_per_epoch, num_steps + 1, steps_per_epoch):
            ax.axvline(step, color=GRID, linewidth=0.8)
    steps, asked = _updates(schedule, num_steps)
    ax.plot(steps, asked, color=BLUE, linewidth=1.8, drawstyle="steps-post", label="asked for")
    if reached is not None:
        ends = np.arange(1, len(reached) + 1) * steps_per_epoch
        ax.plot(ends, reached, "o", color=ORANGE, markersize=5, label="reached")
        ax.legend(loc="lower right", frameon=False)
    if schedule.end_step > num_steps:
        ax.text(
            num_steps,
            0.02,
            f"the schedule ends at step {schedule.end_step:,} ",
            color=GRAY,
            horizontalalignment="right",
        )
    ax.set_xlim(0, num_steps)
    ax.set_ylim(0, 1)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    per_epoch = f" ({steps_per_epoch:,} to an epoch)" if steps_per_epoch else ""
    ax.set_xlabel(f"optimizer step{per_epoch}")
    ax.set_ylabel("zeros")
    format_percent(ax.yaxis)
    clear_spines(ax)
    return figure


def _updates(schedule, num_steps):
    """Lists steps and sparsities where the curve begins, changes and ends."""
    count = schedule.num_updates
    updates = [schedule.update_step(index) for index in range(count)]
    points = [(0, 0.0)] if updates[0] > 0 else []
    points += [(step, schedule.sparsity_at(step)) for step in updates if step <= num_steps]
    points.append((num_steps, points[-1][1] if points else 0.0))
    return zip(*points, strict=True)
