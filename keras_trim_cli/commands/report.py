"""`keras-trim report`: the layers, zeros and sizes of a model file."""

import pathlib
from typing import Annotated

import typer

from keras_trim_cli import files, models, options, streams, summary, text


def report(
    model: options.Model,
    html: Annotated[
        pathlib.Path | None,
        typer.Option("--html", metavar="FILE", help="Write one self-contained page with plots."),
    ] = None,
    max_plots: Annotated[
        int, typer.Option(min=0, help="How many weights the page plots, the largest first.")
    ] = 12,
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Measure the weights in other formats; takes a while.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="List each weight instead of each layer.")
    ] = False,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    force: options.Force = False,
    json: options.Json = False,
):
    """Show the zeros and sizes of a model, layer by layer.

    \b
    Examples:
      keras-trim report model.keras
      keras-trim report model.ktrim --html report.html
      keras-trim report model.keras --json
    """
    models.format_of(model)
    if html is not None:
        if html.suffix not in (".html", ".htm"):
            raise typer.BadParameter(f"--html needs a file that ends in .html, not {html.name!r}")
        files.check_output(html, force)
    with streams.silenced():
        loaded = models.load(model, imports, compile=False)
        with streams.progress("counting", len(loaded.variables)) as advance:
            counted = summary.summarize(loaded, model, advance)
        measured = _measure(loaded) if sizes else None
        if html is not None:
            _write_page(counted, measured, html, max_plots)
    if json:
        streams.print_json(_to_dict(counted, measured, html))
    else:
        _print(counted, measured, weights, html)


def _write_page(counted, measured, path, max_plots):
    from keras_trim_cli.html import render

    num_plots = min(max_plots, len(counted.prunable))
    with streams.progress("drawing", num_plots) as advance:
        page = render(counted, measured, max_plots, advance)
    files.write(path, page)


def _measure(model):
    """The `keras_trim.SizeTable` of a model."""
    import keras_trim

    return keras_trim.size_table(model)


def _to_dict(counted, measured, html):
    return {
        "file": str(counted.path),
        "name": counted.name,
        "bytes": {
            "file": counted.path.stat().st_size,
            "memory": sum(weight.num_bytes for weight in counted.weights),
        },
        **summary.count(counted.weights),
        "prunable": summary.count(counted.prunable),
        "sizes": measured and {row.format: row.num_bytes for row in measured.rows},
        "layers": [layer.to_dict() for layer in counted.layers],
        "html": None if html is None else str(html),
    }


def _print(counted, measured, each_weight, html):
    console = streams.console()
    if each_weight:
        table = text.table(
            "weight", "shape", "dtype", ">weights", ">zeros", ">sparsity", "why not pruned"
        )
        for weight in counted.weights:
            table.add_row(
                weight.path,
                text.shape(weight.shape),
                weight.dtype,
                f"{weight.size:,}",
                f"{weight.zeros:,}",
                text.percent(weight.sparsity),
                weight.reason or "",
            )
    else:
        table = text.table("layer", "type", "kernel", ">weights", ">zeros", ">sparsity", "")
        for layer in counted.layers:
            if not layer.prunable:
                continue
            table.add_row(
                layer.name,
                layer.kind,
                ", ".join(text.shape(weight.shape) for weight in layer.prunable),
                f"{layer.size:,}",
                f"{layer.zeros:,}",
                text.percent(layer.sparsity),
                text.bar(layer.sparsity),
            )
    if table.row_count:
        console.print(table)
    folded = [layer for layer in counted.layers if not layer.prunable]
    if folded and not each_weight:
        console.print(f"not pruned: {_named(folded)}", soft_wrap=True)
    total, prunable = summary.count(counted.weights), summary.count(counted.prunable)
    in_memory = sum(weight.num_bytes for weight in counted.weights)
    console.print(
        f"prunable weights: {prunable['parameters']:,}, "
        f"of which {text.percent(prunable['sparsity'])} are zero\n"
        f"all weights:      {total['parameters']:,}, {text.percent(total['sparsity'])} zero; "
        f"{text.size(in_memory)} in memory\n"
        f"file:             {text.size(counted.path.stat().st_size)}"
    )
    if measured:
        console.print(str(measured))
    if html is not None:
        console.print(f"page:             {html}", soft_wrap=True)


def _named(layers):
    """`"26 BatchNormalization layers (4,160 weights), 13 DepthwiseConv2D layers (...)"`."""
    kinds = {}
    for layer in layers:
        kinds.setdefault(layer.kind, []).append(layer)
    told = []
    for kind, own in kinds.items():
        size = sum(layer.size for layer in own)
        told.append(f"{len(own)} {kind} layer{'s' * (len(own) > 1)} ({size:,} weights)")
    return ", ".join(told)
