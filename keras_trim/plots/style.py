"""The common style of all plots. Matplotlib is only imported when needed, and pyplot never."""

# The palette of Okabe and Ito, which color-blind readers can tell apart.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GRAY = "#6B6B6B"
GRID = "#DDDDDD"
PALE = "#DCE6EE"

# For the names of weights and metrics, whose dollar signs are no formulas.
NAME = {"parse_math": False}


def new_figure(size, dpi=100, layout="tight"):
    """Makes an empty `matplotlib.figure.Figure` for saving. It needs no display.

    Args:
        size: Tuple of width and height in inches.
        dpi: Integer. Pixels per inch when saved as pixels.
        layout: String. Matplotlib's layout engine.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f'plots need Matplotlib: pip install "keras-trim[plots]". Received: {error}'
        ) from error
    return Figure(figsize=size, dpi=dpi, layout=layout)


def clear_spines(ax, *spines):
    """Hides the given spines, by default those at the top and on the right."""
    ax.spines[list(spines) or ["top", "right"]].set_visible(False)


def format_percent(axis):
    axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
