"""Arguments and options that several commands share."""

import pathlib
from typing import Annotated

import typer

Model = Annotated[
    pathlib.Path,
    typer.Argument(
        metavar="MODEL",
        help="Model to read: a .keras, .h5 or .ktrim file.",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
Output = Annotated[
    pathlib.Path, typer.Argument(metavar="OUTPUT", help="File to write.", show_default=False)
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace OUTPUT if it exists.")]
Import = Annotated[
    list[str],
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Python module or .py file that defines custom layers; may be repeated. "
        "It is run: name only code that you trust.",
        show_default=False,
    ),
]
NoCompile = Annotated[
    bool,
    typer.Option("--no-compile", help="Leave optimizer, loss and metrics out."),
]
_calibration = typer.Option(
    "--calibration",
    "-c",
    metavar="FILE",
    help="Examples without labels: a .npy file, or .npz (names are those of the inputs).",
    exists=True,
    dir_okay=False,
    readable=True,
)
Calibration = Annotated[pathlib.Path, _calibration]
MaybeCalibration = Annotated[pathlib.Path | None, _calibration]
Examples = Annotated[
    int, typer.Option("--examples", min=1, help="How many of them to use, the first ones.")
]
Method = Annotated[
    str, typer.Option("--method", help="reconstruct, sparsegpt, wanda or magnitude.")
]
