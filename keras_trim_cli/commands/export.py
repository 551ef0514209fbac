"""`keras-trim export`: files of other runtimes."""

import enum
from typing import Annotated

import typer

from keras_trim_cli import files, models, options, streams, text
from keras_trim_cli.errors import CommandError

_BY_SUFFIX = {
    ".tflite": "litert",
    ".litert": "litert",
    ".onnx": "onnx",
    ".safetensors": "safetensors",
}


class Format(enum.StrEnum):
    """The runtimes' formats."""

    LITERT = "litert"
    ONNX = "onnx"
    SAFETENSORS = "safetensors"


class Weights(enum.StrEnum):
    """What weights are stored as, if not as float32."""

    FLOAT16 = "float16"
    INT8 = "int8"


def export(
    model: options.Model,
    output: options.Output,
    format: Annotated[
        Format | None,
        typer.Option("--format", help="By default what OUTPUT ends with says.", show_default=False),
    ] = None,
    weights: Annotated[
        Weights | None, typer.Option("--weights", help="Store weights smaller than float32.")
    ] = None,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    force: options.Force = False,
    json: options.Json = False,
):
    """Write a model for LiteRT (TensorFlow Lite) or ONNX, or its weights as safetensors.

    LiteRT files store weights sparsely. TensorFlow must be installed for them, PyTorch for ONNX.

    \b
    Examples:
      keras-trim export pruned.keras model.tflite
      keras-trim export pruned.ktrim model.tflite --weights float16
      keras-trim export pruned.keras weights.safetensors
    """
    chosen = format.value if format else _BY_SUFFIX.get(output.suffix)
    if chosen is None:
        raise typer.BadParameter(
            f"give --format: OUTPUT {output.name!r} does not end in {', '.join(_BY_SUFFIX)}"
        )
    if chosen == "onnx" and weights:
        raise typer.BadParameter("ONNX files are written in float32: drop --weights")
    models.format_of(model)
    files.check_output(output, force)
    with streams.silenced():
        loaded = models.load(model, imports, compile=False)
        import keras_trim

        with streams.progress(f"writing {output.name}"), files.writing(output):
            try:
                result = keras_trim.export(
                    loaded, output, format=chosen, weights=weights and weights.value
                )
            except ValueError as error:
                raise CommandError(f"cannot export {model}: {error}") from error
    before, after = (path.stat().st_size for path in (model, output))
    if json:
        streams.print_json(
            {
                "file": str(output),
                "format": result.format,
                "weights": result.weights,
                "bytes": {"before": before, "after": after},
                "sparse": result.is_sparse,
                "batch_size": result.batch_size,
            }
        )
        return
    zeros = "zeros stored sparsely" if result.is_sparse else "zeros stored like other values"
    batch = f"; bound to batches of {result.batch_size}" if result.batch_size else ""
    streams.console().print(
        f"{output}: {text.size(after)} ({model.name}: {text.size(before)}); {zeros}{batch}",
        soft_wrap=True,
    )
