"""Plots of a training run, drawn into the Axes of a multi-panel figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_trim.plots.style import BLUE, GRAY, ORANGE, clear_spines, format_percent, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_figure(num_panels: int) -> tuple["Figure", Any]:
    """Makes a figure of panels side by side for saving. It needs no display.

    Args:
        num_panels: Integer. The number of Axes.

    Returns:
        Tuple of the `matplotlib.figure.Figure` and an array of its Axes.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    figure = new_figure((5.5 * num_panels, 3.8), dpi=150)
    return figure, figure.subplots(1, num_panels, squeeze=False)[0]


def plot_schedule(
    ax: Any, steps: Sequence[int], asked: Sequence[float], reached: Sequence[float]
) -> None:
    """Plots the sparsity that a schedule asks for, and the sparsity counted in the weights.

    Args:
        ax: `matplotlib.axes.Axes` to draw into.
        steps: Sequence of integers: optimizer steps.
        asked: Sequence of floats in `[0, 1]`: the schedule at these steps.
        reached: Sequence of floats in `[0, 1]`: zeros counted after these steps, over size.
    """
    ax.plot(steps, asked, color=ORANGE, linewidth=4, alpha=0.6, label="asked for")
    ax.plot(steps, reached, color=BLUE, linewidth=1.5, drawstyle="steps-post", label="reached")
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(loc="lower right", frameon=False)
    _label(ax, "Sparsity while training", "optimizer step", "zeros among the pruned weights")


def plot_weight_histogram(ax: Any, before: Any, after: Any, num_bins: int = 60) -> None:
    """Plots the distribution of weights before and after pruning.

    Zeros would make one bar that dwarfs the others. So bars only count nonzero weights, as
    fractions of all weights, and the fraction of zeros is written at 0. The outermost bars include
    the weights beyond them.

    Args:
        ax: `matplotlib.axes.Axes` to draw into.
        before: Array of floats, any shape: the weights before pruning.
        after: Array of floats: the same weights after pruning.
        num_bins: Integer. The number of bars over the whole range.
    """
    before, after = np.ravel(before), np.ravel(after)
    nonzero = [weights[weights != 0] for weights in (before, after)]
    # A few large weights would squeeze the rest into the middle.
    limits = [np.quantile(np.abs(weights), 0.995) for weights in nonzero if weights.size]
    limit = max(limits, default=1.0)
    edges = np.linspace(-limit, limit, num_bins + 1)
    shares = [
        np.histogram(np.clip(weights, -limit, limit), edges)[0] / before.size for weights in nonzero
    ]
    ax.stairs(shares[0], edges, color=GRAY, linewidth=1.2, label="before pruning")
    ax.stairs(shares[1], edges, color=BLUE, fill=True, alpha=0.85, label="after pruning")
    top = 1.35 * np.max(shares) or 1.0  # room for the legend and the note at zero
    ax.set_xlim(-limit, limit)
    ax.set_ylim(0, top)
    ax.axvline(0, color=BLUE, linewidth=1, linestyle=":")
    ax.text(
        0.03 * limit,
        0.98 * top,
        f"after pruning, {np.mean(after == 0):.1%}\nare exactly 0 (no bar)",
        color=BLUE,
        verticalalignment="top",
    )
    ax.legend(loc="upper left", frameon=False)
    _label(ax, "Weights that are not 0", "weight", "share of all weights, per bar")


def _label(ax, title, x, y):
    ax.set_title(title, loc="left")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.locator_params(axis="y", nbins=5)
    format_percent(ax.yaxis)
    clear_spines(ax)
