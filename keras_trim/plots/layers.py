"""Plots the sparsity of each weight of a model as bars."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keras_trim.arguments import described, positive_integer
from keras_trim.plots.style import (
    BLUE,
    GRAY,
    GRID,
    NAME,
    PALE,
    clear_spines,
    format_percent,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LABEL = 34


def sparsity_figure(rows: Any, max_bars: int = 60) -> "Figure":
    """Draws a bar per weight: its zeros over its size.

    Args:
        rows: `keras_trim.sparsity_report(model)`, without the weights that are never pruned; or a
            list of `(name, sparsity)`, or of anything with a `path` and a `sparsity`. They are
            drawn from top to bottom.
        max_bars: Integer. If there are more rows, only the first ones are drawn, with a note on how
            many are left out.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: if Matplotlib is not installed.
        ValueError: if there are no rows, or `max_bars` is not positive.

    Example:

    ```python
    report = keras_trim.sparsity_report(model)
    keras_trim.plots.sparsity_figure(report).savefig("sparsity.png")
    ```
    """
    positive_integer(max_bars, "max_bars")
    rows = getattr(rows, "rows", rows)
    if not isinstance(rows, Iterable):
        raise ValueError(
            "`rows` must be `keras_trim.sparsity_report(model)`, or a list of `(name, sparsity)`. "
            f"Received: rows={described(rows)}"
        )
    drawn = [row for row in rows if not getattr(row, "is_by_design", False)]
    bars = [row if isinstance(row, tuple) else (row.path, row.sparsity) for row in drawn]
    if not bars:
        raise ValueError(
            "`rows` must hold at least one weight that is pruned or could be: those of a "
            f"`sparsity_report`. Received: {len(rows)} rows"
        )
    left_out, bars = len(bars) - max_bars, bars[:max_bars]
    names, shares = zip(*bars, strict=True)
    places = range(len(bars))
    figure = new_figure((6.4, 1.0 + 0.24 * len(bars)))
    ax = figure.subplots()
    ax.barh(places, [1.0] * len(bars), height=0.72, color=PALE)  # the whole weight
    ax.barh(places, shares, height=0.72, color=BLUE)
    for place, share in zip(places, shares, strict=True):
        ax.text(
            1.015,
            place,
            f"{share:.1%}",
            color=GRAY,
            verticalalignment="center_baseline",
            fontsize=9,
        )
    ax.set_yticks(places, [shorten(name) for name in names], fontsize=9, **NAME)
    ax.set_ylim(len(bars) - 0.4, -0.6)  # first row at the top
    ax.set_xlim(0, 1)
    format_percent(ax.xaxis)
    ax.set_xlabel(
        "zeros among the weights" + (f"; {left_out} more are not shown" if left_out > 0 else "")
    )
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=GRID, linewidth=0.6, alpha=0.5)
    ax.set_axisbelow(False)
    clear_spines(ax, "top", "right", "left")
    return figure


def shorten(name):
    """Shortens a name to fit beside a row. Long paths lose their middle: their ends differ."""
    if len(name) <= _MAX_LABEL:
        return name
    half = (_MAX_LABEL - 1) // 2
    return f"{name[:half]}…{name[-half:]}"
