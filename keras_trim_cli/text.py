"""Numbers and tables as text."""

from rich import box
from rich.table import Table


def percent(share):
    """`0.805` as "80.50%"; a share below 1 never rounds to 100%."""
    text = f"{share:.2%}"
    return "99.99%" if text == "100.00%" and share < 1 else text


def size(num_bytes):
    """Bytes with a decimal unit (kB is 1000 bytes), as file managers and disks count."""
    number = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 999.5 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.3g} {unit}"


def shape(dimensions):
    return "x".join(str(dimension) for dimension in dimensions) or "scalar"


def bar(share, width=10):
    """A text bar, full at 1."""
    filled = round(share * width)
    if 0 < share < 1:
        filled = min(max(filled, 1), width - 1)
    return "█" * filled + "░" * (width - filled)


def table(*columns, **kwargs):
    """A `rich.table.Table`; a heading that begins with ">" aligns its column to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, **kwargs)
    for heading in columns:
        right = heading.startswith(">")
        made.add_column(
            heading.lstrip(">"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
        )
    return made
