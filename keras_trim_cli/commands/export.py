"""`keras-trim export`: writes files for other runtimes."""

import dataclasses
import enum
import pathlib
from typing import Annotated

import typer

from keras_trim_cli import examples, files, models, options, streams, text
from keras_trim_cli.errors import CommandError

_BY_SUFFIX = {
    ".tflite": "litert",
    ".litert": "litert",
    ".onnx": "onnx",
    ".xml": "openvino",
    ".safetensors": "safetensors",
}


class Format(enum.StrEnum):
    """The runtimes' formats."""

    LITERT = "litert"
    ONNX = "onnx"
    OPENVINO = "openvino"
    SAFETENSORS = "safetensors"


class Weights(enum.StrEnum):
    """Storage formats of weights other than float32."""

    FLOAT16 = "float16"
    INT8 = "int8"


def export(
    model: options.Model,
    output: options.Output,
    format: Annotated[
        Format | None,
        typer.Option("--format", help="Default: by the ending of OUTPUT.", show_default=False),
    ] = None,
    weights: Annotated[
        Weights | None, typer.Option("--weights", help="Store weights smaller than float32.")
    ] = None,
    representative_data: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--representative-data",
            metavar="FILE",
            help="Inputs, as .npy, or .npz with an array per input: LiteRT computes in int8.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    force: options.Force = False,
    json: options.Json = False,
):
    """Write a model for LiteRT (TensorFlow Lite), ONNX or OpenVINO, or its weights as safetensors.

    The file is written only if it returns the same outputs as the model. LiteRT files store weights
    sparsely. LiteRT needs TensorFlow installed; ONNX and OpenVINO need PyTorch.

    \b
    Examples:
      keras-trim export pruned.keras model.tflite
      keras-trim export pruned.ktrim model.tflite --weights float16
      keras-trim export pruned.keras model.tflite --representative-data images.npy
      keras-trim export pruned.keras weights.safetensors
    """
    chosen = _format(output, format and format.value)
    if chosen in ("onnx", "openvino") and weights is Weights.INT8:
        raise typer.BadParameter(f"{chosen} files are not written in int8: drop --weights")
    if representative_data and (chosen != "litert" or weights is Weights.FLOAT16):
        raise typer.BadParameter("--representative-data is for LiteRT files in int8")
    models.format_of(model)
    files.check_output(output, force)
    if chosen == "openvino":
        files.check_output(output.with_suffix(".bin"), force)
    data = None
    if representative_data is not None:
        data = examples.load(representative_data)
    with streams.silenced():
        loaded = models.load(model, imports, compile=False)
        import keras_trim

        with files.writing(output):
            try:
                result = keras_trim.export(
                    loaded,
                    output,
                    format=chosen,
                    weights=weights and weights.value,
                    representative_data=data,
                )
            except ValueError as error:
                raise CommandError(f"cannot export {model}: {error}") from error
    _show(model, output, result, json)


def _show(model, output, result, json):
    """Prints the sizes before and after, and the properties of the file."""
    before, after = model.stat().st_size, result.num_bytes
    if json:
        streams.print_json(
            {
                "file": str(output),
                "format": result.format,
                "weights": result.weights,
                "bytes": {"before": before, "after": after},
                "sparse": result.is_sparse,
                "batch_size": result.batch_size,
                "largest_error": result.largest_error,
                "accuracy": result.accuracy and dataclasses.asdict(result.accuracy),
            }
        )
        return
    zeros = "zeros stored sparsely" if result.is_sparse else "zeros stored like other values"
    batch = f"; bound to batches of {result.batch_size}" if result.batch_size else ""
    streams.console().print(
        f"{output}: {text.size(after)} ({model.name}: {text.size(before)}); {zeros}{batch}",
        soft_wrap=True,
    )
    if result.accuracy:
        streams.console().print(f"beside the float model: {result.accuracy}", soft_wrap=True)


def _format(output, given):
    said = _BY_SUFFIX.get(output.suffix)
    if said is None and (given is None or given == "openvino"):
        raise typer.BadParameter(
            f"give --format: OUTPUT {output.name!r} does not end in {', '.join(_BY_SUFFIX)}"
            if given is None
            else f"OUTPUT must end in .xml, not {output.name!r}"
        )
    if given and said not in (None, given):
        raise typer.BadParameter(f"OUTPUT {output.name!r} ends as {said} files do: drop --format")
    return given or said
