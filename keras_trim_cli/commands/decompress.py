"""`keras-trim decompress`: turns .ktrim files into files that stock Keras loads."""

import pathlib
from typing import Annotated

import typer

from keras_trim_cli import files, models, options, streams, text


def decompress(
    model: options.Model,
    output: Annotated[
        pathlib.Path | None,
        typer.Argument(
            metavar="OUTPUT", help="A .keras or .h5 file; by default MODEL with the ending .keras."
        ),
    ] = None,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    no_compile: options.NoCompile = False,
    force: options.Force = False,
    json: options.Json = False,
):
    """Turn a .ktrim file back into a model file that stock Keras loads.

    \b
    Examples:
      keras-trim decompress model.ktrim
      keras-trim decompress model.ktrim restored.keras --force
    """
    if models.format_of(model) != "ktrim":
        raise typer.BadParameter(f"MODEL must be a .ktrim file, not {model.name!r}")
    output = output or model.with_suffix(".keras")
    models.check_saved_format(output)
    if output.suffix == ".ktrim":
        raise typer.BadParameter(f"OUTPUT must be a .keras or .h5 file, not {output.name!r}")
    files.check_output(output, force)
    before = model.stat().st_size
    with streams.silenced():
        models.save(models.load(model, imports, compile=not no_compile), output)
    after = output.stat().st_size
    if json:
        streams.print_json({"file": str(output), "bytes": {"before": before, "after": after}})
        return
    streams.console().print(f"{output}: {text.size(before)} -> {text.size(after)}", soft_wrap=True)
