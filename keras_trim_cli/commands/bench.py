"""`keras-trim bench`: how fast the sparse engine runs a model."""

from typing import Annotated

import typer

from keras_trim_cli import models, options, streams
from keras_trim_cli.errors import CommandError
from keras_trim_cli.peers import PEERS, peer, time_in_turns


def bench(
    model: options.Model,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads to run on.")] = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Examples per run.")] = 1,
    against: Annotated[
        str, typer.Option("--against", help=f"Also time these: {','.join(PEERS)}.")
    ] = "",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="How long to time each runtime.")
    ] = 2.0,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    json: options.Json = False,
):
    """Time a model in the sparse engine on random inputs.

    \b
    Examples:
      keras-trim bench pruned.keras
      keras-trim bench pruned.keras --threads 2 --batch 8
      keras-trim bench pruned.keras --against litert,onnxruntime
    """
    names = [name.strip() for name in against.split(",") if name.strip()]
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        raise typer.BadParameter(
            f"unknown runtime {', '.join(unknown)}: choose from {', '.join(PEERS)}",
            param_hint="--against",
        )
    models.format_of(model)
    with streams.silenced():
        loaded = models.load(model, imports, compile=False)
        try:
            with streams.progress("compiling (half a minute the first time on a machine)"):
                engine, inputs = _engine(loaded, threads, batch)
                summary = engine.summary(inputs)
            runs = {"keras-trim": engine}
            for name in names:
                with streams.progress(f"exporting for {name}"):
                    runs[name] = _called_as_engine(peer(name, loaded, threads))
            errors = {name: _difference(engine, run, inputs) for name, run in runs.items()}
            with streams.progress("timing"):
                medians = time_in_turns(runs, inputs, seconds)
        except (ImportError, ValueError) as error:
            raise CommandError(f"cannot run {model}: {error}") from error
    if json:
        _print_json(model, threads, batch, summary, medians, errors)
    else:
        _print_table(summary, medians, errors)


def _engine(model, threads, batch):
    import keras

    from keras_trim.exporters.cases import input_structure, refuse_text
    from keras_trim.exporters.samples import random_inputs
    from keras_trim.inference import Engine

    if not getattr(model, "inputs", None):
        raise CommandError("the model's inputs are not known: give it a keras.Input and save it")
    refuse_text(model.inputs)
    shapes = [[32 if size is None else size for size in tensor.shape] for tensor in model.inputs]
    for shape, tensor in zip(shapes, model.inputs, strict=True):
        shape[0] = tensor.shape[0] or batch
    inputs = random_inputs(model, shapes)
    inputs = keras.tree.pack_sequence_as(input_structure(model), inputs)
    return Engine(model, num_threads=threads), inputs


def _called_as_engine(run):
    import keras

    return lambda inputs: run(keras.tree.flatten(inputs))


def _difference(engine, run, inputs):
    """Largest difference of the outputs from the engine's, over the largest output."""
    import keras
    import numpy as np

    pairs = zip(keras.tree.flatten(engine(inputs)), keras.tree.flatten(run(inputs)), strict=True)
    return max(
        float(np.abs(np.asarray(a, "float64") - np.asarray(b, "float64")).max())
        / max(float(np.abs(np.asarray(a, "float64")).max()), 1e-30)
        for a, b in pairs
    )


def _print_json(model, threads, batch, summary, medians, errors):
    streams.print_json(
        {
            "file": str(model),
            "threads": threads,
            "batch": batch,
            "milliseconds": {name: median * 1e3 for name, median in medians.items()},
            "largest_difference": errors,
            "layers": [
                {
                    "layer": row.layer,
                    "operation": row.operation,
                    "kernel": row.kernel,
                    "sparsity": row.sparsity,
                    "multiply_adds": row.multiply_adds,
                    "kept": row.kept,
                    "milliseconds": row.seconds * 1e3,
                }
                for row in summary.rows
            ],
        }
    )


def _print_table(summary, medians, errors):
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("runtime")
    for heading in ("ms, median", "times the engine's", "largest difference"):
        table.add_column(heading, justify="right")
    for name, median in medians.items():
        table.add_row(
            name,
            f"{median * 1e3:.3f}",
            f"{median / medians['keras-trim']:.2f}",
            f"{errors[name]:.1e}",
        )
    console = streams.console()
    console.print(str(summary), soft_wrap=True)
    console.print(table)
