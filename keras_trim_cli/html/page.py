"""Renders the page."""

import jinja2

from keras_trim import __version__, plots
from keras_trim_cli import summary, text
from keras_trim_cli.html.svg import inline


def render(model, sizes=None, max_plots=12, advance=lambda: None):
    """Renders the report of a model.

    Args:
        model: `summary.Summary`.
        sizes: `keras_trim.SizeTable` or `None`.
        max_plots: Integer. How many weights to plot, the largest first.
        advance: Function to call after each plotted weight.

    Returns:
        String: a self-contained HTML document.
    """
    drawn = sorted(model.prunable, key=lambda weight: -weight.size)[:max_plots]
    cards = []
    for index, weight in enumerate(w for w in model.prunable if w in drawn):
        cards.append(_card(weight, f"w{index}"))
        advance()
    bars = None
    if model.prunable:
        bars = inline(
            plots.sparsity_figure(model.prunable),
            "bars",
            "Bars of the share of zeros of each prunable weight; the table has the numbers.",
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_trim_cli", "html"),
        autoescape=True,  # names of layers come from the file
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=text.percent, size=text.size, shape=text.shape)
    return environment.get_template("report.html.jinja").render(
        model=model,
        total=summary.count(model.weights),
        prunable=summary.count(model.prunable),
        file_bytes=model.path.stat().st_size,
        weight_bytes=sum(weight.num_bytes for weight in model.weights),
        sizes=sizes,
        bars=bars,
        cards=cards,
        num_left_out=len(model.prunable) - len(cards),
        version=__version__,
    )


def _card(weight, prefix):
    values = weight.values
    share = text.percent(weight.sparsity)
    return {
        "weight": weight,
        "histogram": inline(
            plots.histogram_figure(values),
            f"{prefix}h",
            f"Histogram of {weight.path}: {share} are exactly zero.",
        ),
        "mask": inline(
            plots.mask_figure(values),
            f"{prefix}m",
            f"Image of where {weight.path}, {text.shape(weight.shape)}, is zero.",
        ),
    }
