"""`keras-trim check`: checks whether a runtime will skip the zeros."""

import enum
from typing import Annotated

import typer

from keras_trim_cli import models, options, streams
from keras_trim_cli.errors import CommandError


class Target(enum.StrEnum):
    """Runtimes."""

    XNNPACK = "xnnpack"
    LITERT = "litert"
    ONNX = "onnx"
    ENGINE = "engine"
    NVIDIA = "nvidia-2:4"


def check(
    model: options.Model,
    target: Annotated[Target, typer.Option("--target", "-t", help="The runtime.")] = Target.ENGINE,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    json: options.Json = False,
):
    """Report for each weight whether a runtime will skip its zeros, and if not, what to change.

    The runtime is this library's engine, unless --target names another. Exits with 1 if a weight
    with 30 % zeros or more gains nothing from them, or if no weight runs sparsely.

    \b
    Examples:
      keras-trim check pruned.keras
      keras-trim check pruned.keras --target xnnpack
      keras-trim check pruned.keras --target nvidia-2:4
      keras-trim check pruned.keras --target litert --json
    """
    models.format_of(model)
    with streams.silenced():
        loaded = models.load(model, imports, compile=False)
        import keras_trim

        try:
            report = keras_trim.check(loaded, target=target.value)
        except ValueError as error:
            raise CommandError(f"cannot check {model}: {error}") from error
    if json:
        streams.print_json({"file": str(model), **report.to_dict()})
    else:
        streams.console().print(str(report), soft_wrap=True)
    raise typer.Exit(0 if report else 1)
