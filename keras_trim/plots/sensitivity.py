"""Plots how much each weight of a model matters, as a heat map."""

from typing import TYPE_CHECKING, Any

from keras_trim.arguments import described, positive_integer
from keras_trim.plots.layers import shorten
from keras_trim.plots.style import GRAY, NAME, clear_spines, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sensitivity_figure(sensitivity: Any, max_rows: int = 60) -> "Figure":
    """Draws a row per weight and a column per sparsity. Darker means a larger loss.

    Args:
        sensitivity: `keras_trim.Sensitivity`.
        max_rows: Integer. If there are more weights, only those that matter most are drawn.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: if Matplotlib is not installed.
        ValueError: if there are no rows, or `max_rows` is not positive.
    """
    positive_integer(max_rows, "max_rows")
    if not hasattr(sensitivity, "by_weight"):
        raise ValueError(
            "`sensitivity` must be what `keras_trim.sensitivity(model, x)` returned. "
            f"Received: sensitivity={described(sensitivity)}"
        )
    weights = sensitivity.by_weight()
    if not weights:
        raise ValueError("`sensitivity` must have at least one row. Received: rows=[]")
    largest = {path: max(abs(row.change) for row in rows) for path, rows in weights.items()}
    drawn = set(sorted(weights, key=largest.get, reverse=True)[:max_rows])
    paths = [path for path in weights if path in drawn]
    sparsities = sorted({row.sparsity for row in sensitivity.rows})
    changes = {(row.path, row.sparsity): row.change for row in sensitivity.rows}
    # A cell without a row stays empty.
    grid = [[abs(changes.get((path, s), float("nan"))) for s in sparsities] for path in paths]
    figure = new_figure((6.4, 1.2 + 0.26 * len(paths)))
    ax = figure.subplots()
    image = ax.imshow(grid, aspect="auto", cmap="Blues", vmin=0)
    dark = 0.6 * max(largest[path] for path in paths)
    for i, path in enumerate(paths):
        for j, sparsity in enumerate(sparsities):
            change = changes.get((path, sparsity))
            if change is not None:
                color = "white" if abs(change) > dark else GRAY
                ax.text(j, i, f"{change:+.3f}", color=color, ha="center", va="center", fontsize=8)
    ax.set_xticks(range(len(sparsities)), [f"{100 * s:.3g}%" for s in sparsities])
    ax.set_yticks(range(len(paths)), [shorten(path) for path in paths], fontsize=9, **NAME)
    ax.tick_params(length=0)
    what = sensitivity.metric
    ax.set_title(what if what == "output error" else f"change of {what}", fontsize=10, **NAME)
    figure.colorbar(image, ax=ax, shrink=0.8)
    clear_spines(ax, "top", "right", "left", "bottom")
    return figure
