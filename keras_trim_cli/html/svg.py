"""Inlines figures as SVG, with the font and colors of the page (light or dark) and unique ids."""

import io
import re
import warnings

from markupsafe import Markup, escape

from keras_trim.plots import style

# Colors of the figures -> variables of the page's style sheet.
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
        prefix: String. Prepended to every id, because ids must be unique in a page.
        description: String. Text for screen readers.

    Returns:
        `markupsafe.Markup`.
    """
    import matplotlib

    # Phones scale the figure down, so its text must be relatively large.
    height = figure.get_size_inches()[1]
    figure.set_size_inches(_WIDTH, height if height < _WIDTH else 0.9 * height)
    buffer = io.StringIO()
    # Keeps text as text. The salt makes output reproducible.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}),
        warnings.catch_warnings(),
    ):
        # Browsers have the characters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
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
