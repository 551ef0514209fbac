"""`keras-trim compress`: stores a model in a small file."""

import enum
import pathlib
from typing import Annotated

import typer

from keras_trim_cli import backend, files, models, options, streams, text
from keras_trim_cli.errors import CommandError


class Values(enum.StrEnum):
    """Formats to round values to."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


def compress(
    model: options.Model,
    output: Annotated[
        pathlib.Path | None,
        typer.Argument(
            metavar="OUTPUT", help="File to write; by default MODEL with the ending .ktrim."
        ),
    ] = None,
    keras: Annotated[
        bool,
        typer.Option("--keras", help="Write a .keras file that stock Keras loads; it is larger."),
    ] = False,
    values: Annotated[
        Values | None,
        typer.Option("--values", help="Round the values of kernels; the error is reported."),
    ] = None,
    optimizer: Annotated[
        bool, typer.Option("--optimizer", help="Keep the optimizer's state (momenta) too.")
    ] = False,
    no_compile: options.NoCompile = False,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    force: options.Force = False,
    json: options.Json = False,
):
    """Store a model so that zeros take almost no space: .ktrim, lossless without --values.

    \b
    Examples:
      keras-trim compress pruned.keras
      keras-trim compress pruned.keras small.ktrim --values int8
      keras-trim compress pruned.keras pruned-small.keras --keras
    """
    output = output or _default_output(model, keras)
    _check(model, output, keras, values, optimizer)
    files.check_output(output, force)
    before = model.stat().st_size
    error, memory, dropped = 0.0, None, False
    with streams.silenced():
        if keras:
            _recompress(model, output)
        else:
            loaded = models.load(model, imports, compile=not no_compile)
            result = models.save(
                loaded, output, values=values and values.value, optimizer=optimizer
            )
            error, memory = result.largest_error, result.num_bytes
            dropped = models.leaves_optimizer_out(loaded, output, optimizer)
    after = output.stat().st_size
    if json:
        streams.print_json(
            {
                "file": str(output),
                "bytes": {"before": before, "memory": memory, "after": after},
                "values": values and values.value,
                "largest_error": error,
                "optimizer_left_out": dropped,
            }
        )
        return
    from keras_trim.storage.result import compared

    lines = [f"{output}: {text.size(after)}, {compared(after, before)} than {model.name}"]
    if memory:
        lines.append(f"{compared(after, memory)} than the same numbers in memory")
    lines.append(f"values changed by {error:.3g} at most" if error else "no value changed")
    if dropped:
        lines.append("the optimizer's state was left out: --optimizer keeps it")
    streams.console().print("\n".join(lines), soft_wrap=True)


def _default_output(model, keras):
    if keras:
        raise typer.BadParameter("--keras needs OUTPUT; it may be MODEL itself, with --force")
    return model.with_suffix(".ktrim")


def _check(model, output, keras, values, optimizer):
    kind = models.format_of(model)
    ending = ".keras" if keras else ".ktrim"
    if output.suffix != ending:
        hint = "" if keras else "; for a .keras file that stock Keras loads, give --keras"
        raise typer.BadParameter(f"OUTPUT must end in {ending}, not {output.name!r}{hint}")
    if keras and kind != "keras":
        raise typer.BadParameter("--keras recompresses a .keras file")
    if keras and (values or optimizer):
        raise typer.BadParameter("--keras keeps all as it is: drop --values and --optimizer")


def _recompress(model, output):
    with streams.progress(f"compressing {model.name}"), files.writing(output):
        keras_trim = backend.start()
        try:
            keras_trim.compress_keras(model, output)
        except ValueError as error:
            raise CommandError(f"cannot compress {model}: {error}") from error
