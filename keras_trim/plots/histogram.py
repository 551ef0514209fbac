"""Plots the distribution of a weight's values, with zeros apart."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_trim.arguments import positive_integer
from keras_trim.plots.style import (
    BLUE,
    GRAY,
    NAME,
    ORANGE,
    clear_spines,
    format_percent,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def histogram_figure(weights: Any, title: str = "", num_bins: int = 61) -> "Figure":
    """Draws the fraction of zeros as a separate bar, and the other values as a histogram.

    On a shared scale, the spike at zero would hide the other values. Both panels show fractions of
    all values. The outermost bars include the values beyond them.

    Args:
        weights: Array of numbers, any shape.
        title: String. The figure's title.
        num_bins: Integer. The number of bars over the range of nonzero values.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: if Matplotlib is not installed.
        ValueError: if there are no values, or `num_bins` is not positive.

    Example:

    ```python
    keras_trim.plots.histogram_figure(layer.kernel.numpy()).savefig("kernel.png")
    ```
    """
    positive_integer(num_bins, "num_bins")
    values = np.ravel(np.asarray(weights)).astype("float64")
    if not values.size:
        raise ValueError(f"`weights` must hold values. Received: shape {np.shape(weights)}")
    finite = values[np.isfinite(values)]
    others = finite[finite != 0]
    num_odd = values.size - finite.size

    figure = new_figure((6.4, 2.8))
    left, right = figure.subplots(1, 2, width_ratios=[1, 6])
    zeros = np.count_nonzero(values == 0) / values.size
    left.bar([0], [zeros], width=0.7, color=ORANGE)
    left.set_ylim(0, 1.12)  # room for the label above the bar
    left.set_xlim(-0.6, 0.6)
    left.set_xticks([0], ["exactly 0"])
    left.set_yticks([0, 0.5, 1])
    left.spines["left"].set_bounds(0, 1)
    left.text(0, zeros + 0.035, f"{zeros:.1%}", horizontalalignment="center", color=GRAY)
    left.set_ylabel("share of all weights")

    edges = _edges(others, num_bins)
    counts = np.histogram(np.clip(others, edges[0], edges[-1]), edges)[0] / values.size
    right.stairs(counts, edges, color=BLUE, fill=True)
    right.set_xlim(edges[0], edges[-1])
    right.set_ylim(0, 1.08 * counts.max() or 1)
    right.locator_params(axis="y", nbins=4)
    right.set_xlabel(
        "value, where it is not 0" + (f" ({num_odd:,} NaN or infinite)" if num_odd else "")
    )
    if not others.size:
        right.text(0.5, 0.5, "none", transform=right.transAxes, color=GRAY, ha="center")
    for ax in (left, right):
        format_percent(ax.yaxis)
        clear_spines(ax)
    left.tick_params(axis="x", length=0)
    if title:
        figure.suptitle(title, x=0.02, horizontalalignment="left", fontsize=11, **NAME)
    return figure


def _edges(others, num_bins):
    """Returns the edges of bars of equal width, symmetric around 0 if both signs occur."""
    if not others.size:
        return np.linspace(-1.0, 1.0, num_bins + 1)
    # A few large values would squeeze the rest into the middle.
    low, high = np.quantile(others, [0.0025, 0.9975])
    if low < 0 < high:
        high = max(-low, high)
        low = -high
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        margin = 0.5 * abs(high) or 0.5
        low, high = low - margin, high + margin
    return np.linspace(low, high, num_bins + 1)
