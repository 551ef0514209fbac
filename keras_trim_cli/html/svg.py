"""Figures as SVG inside a page: in its font and colours (light or dark), with ids of their own."""

import io
import re

from markupsafe import Markup, escape

from keras_trim.plots import style

# Colours of the figures -> variables of the page's style sheet.
_COLOURS = {
    style.BLUE: "--accent",
    style.ORANGE: "--accent-2",
    style.GRAY: "--muted",
    style.GRID: "--line",
    style.PALE: "--track",
    "#000000": "--ink",
    "#262626": "--ink",
}

_WIDTH = 4.6  # inches


def inline(figure, prefix, description):
    """Draws a figure as an `<svg>` element.

    Args:
        figure: `matplotlib.figure.Figure`.
        prefix: String. Put before every id: a page holds each of them once.
        description: String. What a reader who cannot see it is told.

    Returns:
        `markupsafe.Markup`.
    """
    import matplotlib

    # On a phone it shrinks to its width: text must be large beside the whole.
    height = figure.get_size_inches()[1]
    figure.set_size_inches(_WIDTH, height if height < _WIDTH else 0.9 * height)
    buffer = io.StringIO()
    # Text stays text. The salt makes equal reports equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href=")#', rf"\g<1>#{prefix}-", svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    for colour, variable in _COLOURS.items():
        svg = re.sub(rf"(fill|stroke): {colour}", rf"\1: var({variable})", svg, flags=re.IGNORECASE)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r' (width|height|xmlns(:\w+)?|version)="[^"]*"', "", opening)
    label = f' role="img" aria-label="{escape(description)}">'
    return Markup(opening + label + rest)
