"""`keras-trim diff`: compares two models, weight by weight."""

import math
import pathlib
from typing import Annotated

import typer

from keras_trim_cli import comparison, models, options, streams, summary, text


def diff(
    a: options.Model,
    b: Annotated[
        pathlib.Path,
        typer.Argument(
            metavar="OTHER", help="Model to compare it with.", exists=True, dir_okay=False
        ),
    ],
    show_all: Annotated[bool, typer.Option("--all", help="List equal weights too.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if the weights differ.")
    ] = False,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    json: options.Json = False,
):
    """Show which weights of two models differ, and by how much: values, zeros, bytes.

    Weights are paired by path, or by order if Keras numbered unnamed layers differently.

    \b
    Examples:
      keras-trim diff dense.keras pruned.keras
      keras-trim diff model.keras model.ktrim --exit-code && echo lossless
      keras-trim diff a.keras b.keras --json
    """
    for path in (a, b):
        models.format_of(path)
    with streams.silenced():
        sides = [
            summary.summarize(models.load(path, imports, compile=False), path) for path in (a, b)
        ]
        pairs, by_order = comparison.match(*(side.weights for side in sides))
        with streams.progress("comparing", len(pairs)) as advance:
            differences = []
            for pair in pairs:
                differences.append(comparison.compare(*pair))
                advance()
    differing = [d for d in differences if d.status != "same"]
    if json:
        streams.print_json(
            {
                "equal": not differing,
                "paired_by": "order" if by_order else "path",
                **{
                    name: {
                        "file": str(side.path),
                        "bytes": side.path.stat().st_size,
                        **summary.count(side.weights),
                    }
                    for name, side in zip("ab", sides, strict=True)
                },
                "weights": [difference.to_dict() for difference in differences],
            }
        )
    else:
        _print(sides, differences if show_all else differing, len(differing), by_order)
    raise typer.Exit(1 if exit_code and differing else 0)


def _print(sides, differences, num_differing, by_order):
    console = streams.console()
    for name, side in zip("AB", sides, strict=True):
        console.print(f"{name}: {side.path}", soft_wrap=True)
    table = text.table("", ">A", ">B", ">B / A")
    counts = [summary.count(side.weights) for side in sides]
    rows = [
        ("bytes", [side.path.stat().st_size for side in sides]),
        ("weights", [count["parameters"] for count in counts]),
        ("not zero", [count["parameters"] - count["zeros"] for count in counts]),
    ]
    for name, (first, second) in rows:
        ratio = f"{second / first:.3f}" if first else ""
        table.add_row(name, f"{first:,}", f"{second:,}", ratio)
    table.add_row("sparsity", *(text.percent(count["sparsity"]) for count in counts), "")
    console.print(table)
    if differences:
        console.print(_table(differences))
    if not num_differing:
        console.print("all weights are equal")
    else:
        differ = "weight differs" if num_differing == 1 else "weights differ"
        console.print(f"{num_differing} {differ}")
    if by_order:
        console.print("(paths differ: weights were paired by their order)")


def _table(differences):
    table = text.table(
        "weight", "shape", "", ">sparsity A", ">B", ">changed", ">largest", ">relative"
    )
    for d in differences:
        table.add_row(
            d.path,
            " → ".join(dict.fromkeys(text.shape(w.shape) for w in (d.a, d.b) if w)),
            d.status if d.status != "retyped" else f"{d.a.dtype} → {d.b.dtype}",
            *(text.percent(w.sparsity) if w else "" for w in (d.a, d.b)),
            "" if d.changed is None else f"{d.changed:,}",
            "" if d.max_change is None else f"{d.max_change:.3g}",
            "" if d.relative_change is None else _relative(d.relative_change),
        )
    return table


def _relative(change):
    return f"{change:.2%}" if math.isfinite(change) else "-"
