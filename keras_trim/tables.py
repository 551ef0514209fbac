"""Tables for people: text that fits its terminal, and HTML for notebooks."""

import abc
import dataclasses
import html
import io
import shutil
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH = 140  # without a terminal
_MOST_ROWS = 60  # in a `repr`
# Replacements for characters that are missing in encodings such as cp1252.
_PLAIN = str.maketrans(
    {"─": "-", "│": "|", "█": "#", "░": ".", "→": ">", "…": "~", "╶": "-", "╴": "-"}
)
_CELL = "padding:1px 10px 1px 0;text-align:{};white-space:{};vertical-align:top"


@dataclasses.dataclass
class PrintedTable:
    """A table with lines of text below it.

    Args:
        columns: List of strings. Headings. One that begins with ">" is aligned to the right.
        rows: List of lists of strings.
        lines: List of strings, shown below the table.
        folded: List of tuples (summary, columns, rows): more tables, only in HTML, where a click
            unfolds them.
    """

    columns: list[str]
    rows: list[list[str]]
    lines: list[str] = dataclasses.field(default_factory=list)
    folded: list[tuple[str, list[str], list[list[str]]]] = dataclasses.field(default_factory=list)

    def text(self, most_rows: int | None = None) -> str:
        """Returns the table as text, as wide as the terminal, in characters that it supports."""
        rows, left_out = self.rows, 0
        if most_rows is not None and len(rows) > most_rows:
            left_out = len(rows) - most_rows
            rows = rows[:most_rows]
        buffer = io.StringIO()
        console = Console(file=buffer, width=_width(), color_system=None, highlight=False)
        if rows:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for heading in self.columns:
                side = "right" if heading.startswith(">") else "left"
                table.add_column(heading.lstrip(">"), justify=side, overflow="fold")
            for row in rows:
                table.add_row(*map(Text, row))
            console.print(table)
        more = [f"... and {left_out} more rows: `print` shows all."] if left_out else []
        for line in [*more, *self.lines]:
            console.print(Text(line))
        lines = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
        return printable(lines, sys.stdout)

    def html(self) -> str:
        """Returns the table as self-contained HTML."""
        parts = [_html_table(self.columns, self.rows)] if self.rows else []
        parts += [f"<div>{html.escape(line)}</div>" for line in self.lines]
        for summary, columns, rows in self.folded:
            shown = f"<summary>{html.escape(summary)}</summary>{_html_table(columns, rows)}"
            parts.append(f"<details>{shown}</details>")
        return f"<div>{''.join(parts)}</div>"


class Shown(abc.ABC):
    """Base class of objects that print as a table."""

    @abc.abstractmethod
    def _table(self) -> PrintedTable:
        """Returns the table."""

    def __str__(self) -> str:
        return self._table().text()

    def __repr__(self) -> str:
        return self._table().text(_MOST_ROWS)

    def _repr_html_(self) -> str:
        return self._table().html()


def without_empty(columns: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Returns only the columns of a table that are not empty."""
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def printable(text: str, stream: Any) -> str:
    """Replaces what a stream cannot encode: lines of the table by plain ones, letters by "?"."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except LookupError:
        encoding = "ascii"
    except UnicodeEncodeError:
        pass
    else:
        return text
    return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)


def _width() -> int:
    if sys.stdout is not None and sys.stdout.isatty():
        return shutil.get_terminal_size((_WIDTH, 24)).columns
    return _WIDTH


def _html_table(columns: list[str], rows: list[list[str]]) -> str:
    sides = ["right" if heading.startswith(">") else "left" for heading in columns]
    head = "".join(
        f'<th style="{_CELL.format(side, "nowrap")}">{html.escape(heading.lstrip(">"))}</th>'
        for heading, side in zip(columns, sides, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{_CELL.format(side, "normal")}">{html.escape(cell)}</td>'
            for cell, side in zip(row, sides, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="max-height:40em;overflow:auto">{table}</div>'
