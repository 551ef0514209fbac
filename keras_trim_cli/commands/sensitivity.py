"""`keras-trim sensitivity`: measures how sensitive a model is to pruning each weight."""

import pathlib
from typing import Annotated

import typer

from keras_trim_cli import examples, files, models, options, streams
from keras_trim_cli.errors import CommandError


def sensitivity(
    model: options.Model,
    calibration: options.Calibration,
    num_examples: options.Examples = 512,
    method: options.Method = "reconstruct",
    sparsities: Annotated[
        str, typer.Option("--sparsities", help="Fractions of zeros to try, separated by commas.")
    ] = "0.5,0.75,0.875,0.95",
    output: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="JSON file for results; keeps those in it."
        ),
    ] = None,
    plot: Annotated[
        pathlib.Path | None, typer.Option("--plot", metavar="FILE", help="Draw a heat map (PNG).")
    ] = None,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    force: options.Force = False,
    json: options.Json = False,
):
    """Prune one weight at a time, and measure the error of the outputs.

    \b
    Examples:
      keras-trim sensitivity model.keras --calibration x.npy
      keras-trim sensitivity model.keras --calibration x.npy -o sensitivity.json --plot heat.png
    """
    try:
        tried = tuple(float(part) for part in sparsities.split(","))
    except ValueError:
        raise typer.BadParameter("--sparsities must be like 0.5,0.9") from None
    models.format_of(model)
    if plot is not None:
        if plot.suffix.lower() != ".png":
            raise typer.BadParameter(
                f"--plot draws a PNG, whose name ends in .png, not {plot.name!r}"
            )
        files.check_output(plot, force)
    if output is not None:  # its rows are kept and extended
        files.check_output(output, force=True)
    data = examples.read(calibration, num_examples)
    with streams.silenced():
        loaded = models.load(model, imports, compile=False)
        import keras_trim

        try:
            result = keras_trim.sensitivity(
                loaded, data, sparsities=tried, method=method, path=output
            )
        except ValueError as error:
            raise CommandError(f"cannot measure {model}: {error}") from error
        if plot is not None:
            with files.replacing(plot) as temporary:
                keras_trim.plots.sensitivity_figure(result).savefig(temporary, format="png")
    if json:
        streams.print_json({"file": str(model), **result.to_dict()})
        return
    streams.console().print(str(result), soft_wrap=True)
