"""Plots the positions of a weight's zeros as an image."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_trim.arguments import positive_integer
from keras_trim.plots.style import BLUE, GRAY, NAME, PALE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mask_figure(weights: Any, title: str = "", max_pixels: int = 256) -> "Figure":
    """Draws which values of a weight are kept and which are zero.

    Rows are inputs (for a convolution: window positions, then input channels) and columns are
    output channels. A side longer than `max_pixels` is divided into that many parts, equal up to
    one. Each pixel then shows the fraction of nonzero values in its part, so nothing is skipped.

    Args:
        weights: Array of numbers of rank 1 or more. The last axis becomes the columns.
        title: String. The figure's title.
        max_pixels: Integer. The most pixels per side.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: if Matplotlib is not installed.
        ValueError: if there are no values, the array has no axis, or `max_pixels` is not positive.

    Example:

    ```python
    keras_trim.plots.mask_figure(layer.kernel.numpy(), "hidden/kernel").savefig("mask.png")
    ```
    """
    positive_integer(max_pixels, "max_pixels")
    weights = np.asarray(weights)
    if not weights.size or not weights.ndim:
        raise ValueError(
            f"`weights` must hold values along at least one axis. Received: shape {weights.shape}"
        )
    matrix = weights.reshape(-1, weights.shape[-1]) != 0
    density, part = density_per_pixel(matrix, max_pixels)
    rows, columns = matrix.shape

    averaged = part != (1, 1)

    figure = new_figure((6.4, _height(density.shape)), layout="constrained")
    ax = figure.subplots()
    from matplotlib.colors import LinearSegmentedColormap

    image = ax.imshow(
        density,
        cmap=LinearSegmentedColormap.from_list("density", [PALE, BLUE], N=256 if averaged else 2),
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="none",
        extent=(0, columns, rows, 0),  # axes count weights, not pixels
    )
    if weights.ndim == 1:
        ax.set_yticks([])
    else:
        ax.set_ylabel("input" if weights.ndim == 2 else "place and input channel")
        ax.set_xlabel("output channel")
    ax.locator_params(axis="x" if weights.ndim == 1 else "both", integer=True, nbins=6)
    bar = figure.colorbar(image, ax=ax, ticks=[0, 0.5, 1] if averaged else [0.25, 0.75], shrink=0.9)
    bar.ax.set_yticklabels(["0%", "50%", "100%"] if averaged else ["zero", "kept"])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    if averaged:
        bar.set_label("kept, per pixel")
    note = f"a pixel stands for about {part[0]} x {part[1]} weights" if averaged else ""
    heading = "\n".join(line for line in (title, note) if line)
    ax.set_title(heading, loc="left", fontsize=10, color=GRAY, **NAME)
    return figure


def density_per_pixel(matrix, max_pixels=256):
    """Averages a matrix over parts of nearly equal size.

    Args:
        matrix: Array of rank 2 of booleans or numbers.
        max_pixels: Integer. The most rows and the most columns of the result.

    Returns:
        Tuple: array of floats, at most `(max_pixels, max_pixels)`, in which every element of
            `matrix`
        counts once; and the (largest) height and width of a part.
    """
    sums, counts, part = matrix, 1, []
    for axis, size in enumerate(matrix.shape):
        num_parts = min(size, max_pixels)
        starts = np.arange(num_parts) * size // num_parts
        sums = np.add.reduceat(sums, starts, axis=axis, dtype="float64")
        lengths = np.diff(np.append(starts, size))
        counts = counts * (lengths[:, None] if axis == 0 else lengths)
        part.append(int(lengths.max()))
    return sums / counts, tuple(part)


def _height(shape):
    """Returns inches: as tall as the shape asks for, within the limits of a page."""
    return float(np.clip(4.4 * shape[0] / shape[1], 1.8, 4.0)) + 0.7
