"""What all pictures share. Matplotlib is imported only to make one, and pyplot never."""

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREY = "#6B6B6B"
GRID = "#DDDDDD"
PALE = "#DCE6EE"


def new_figure(size, dpi=100, layout="tight"):
    """Makes an empty `matplotlib.figure.Figure`, to be saved: it needs no display.

    Args:
        size: Tuple of width and height in inches.
        dpi: Integer. Pixels per inch, where it is saved as pixels.
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
    """Takes the lines at the top and the right off, or those that are named."""
    ax.spines[list(spines) or ["top", "right"]].set_visible(False)


def format_percent(axis):
    axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
