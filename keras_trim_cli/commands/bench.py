"""`keras-trim bench`: times a model in Keras, in the sparse engine and in other runtimes."""

from typing import Annotated

import typer

from keras_trim_cli import models, options, streams
from keras_trim_cli.errors import CommandError

_OTHERS = ("litert", "onnxruntime")


def bench(
    model: Annotated[options.pathlib.Path, options.model_argument(".engine")],
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, help="Threads to run on: all cores by default.", show_default=False
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Examples per run.")] = 1,
    against: Annotated[
        str,
        typer.Option(
            "--against", help=f"Runtimes besides Keras: {','.join(_OTHERS)}; installed; or none."
        ),
    ] = "installed",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="How long to time each runtime.")
    ] = 1.0,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also show each layer's time in the engine.")
    ] = False,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    json: options.Json = False,
):
    """Time a model in Keras, in the sparse engine and in installed runtimes, on random inputs.

    An .engine file is timed in the engine only, without Keras.

    \b
    Examples:
      keras-trim bench pruned.keras
      keras-trim bench pruned.keras --threads 2 --batch 8 --layers
      keras-trim bench pruned.keras --against none
      keras-trim bench model.engine --json
    """
    runtimes = _runtimes(against)
    if model.suffix == ".engine":
        _bench_engine(model, threads, seconds, layers, json)
        return
    models.format_of(model)
    with streams.silenced():
        loaded = models.load(model, imports, compile=False)
        import keras_trim

        try:
            report = keras_trim.bench(
                loaded,
                batch_size=batch,
                num_threads=threads,
                runtimes=runtimes,
                seconds=seconds,
            )
        except (ImportError, ValueError) as error:
            raise CommandError(f"cannot run {model}: {error}") from error
    if json:
        told = report.to_dict()
        told = {"threads": told.pop("num_threads"), "batch": told.pop("batch_size"), **told}
        streams.print_json({"file": str(model), **told, "layers": _rows(report.layers)})
        return
    console = streams.console()
    if layers and report.layers is not None:
        console.print(str(report.layers), soft_wrap=True)
    console.print(str(report), soft_wrap=True)


def _runtimes(against):
    names = [name.strip() for name in against.split(",") if name.strip()]
    if names == ["installed"]:
        return None
    names = [] if names == ["none"] else names
    unknown = sorted(set(names) - set(_OTHERS))
    if unknown:
        raise typer.BadParameter(
            f"unknown runtime {', '.join(unknown)}: choose from {', '.join(_OTHERS)}",
            param_hint="--against",
        )
    return names


def _bench_engine(path, threads, seconds, layers, json):
    with streams.silenced():
        try:
            models.show_progress()
            from keras_trim.inference import Engine

            engine = Engine.load(path, threads)
            result, summary = engine.benchmark(seconds=seconds), engine.summary()
        except (ImportError, ValueError) as error:  # a FormatError is one
            raise CommandError(f"cannot run {path}: {error}") from error
    if json:
        streams.print_json(
            {
                "file": str(path),
                "threads": result.num_threads,
                "batch": result.batch_size,
                "milliseconds": {"keras-trim": result.seconds * 1e3},
                "layers": _rows(summary),
            }
        )
        return
    console = streams.console()
    if layers:
        console.print(str(summary), soft_wrap=True)
    console.print(str(result), soft_wrap=True)


def _rows(summary):
    return [
        {
            "layer": row.layer,
            "operation": row.operation,
            "kernel": row.kernel,
            "sparsity": row.sparsity,
            "multiply_adds": row.multiply_adds,
            "kept": row.kept,
            "milliseconds": row.seconds * 1e3,
        }
        for row in (summary.rows if summary else ())
    ]
