"""Arguments and options that several commands share."""

import pathlib
from typing import Annotated

import typer


def model_argument(*more):
    """The argument MODEL of a command that also reads files with other endings."""
    endings = [".keras", ".h5", ".ktrim", *more]
    return typer.Argument(
        metavar="MODEL",
        help=f"Model to read: a {', '.join(endings[:-1])} or {endings[-1]} file.",
        exists=True,
        dir_okay=False,
        readable=True,
        autocompletion=_files_ending(endings),
    )


def _files_ending(endings):
    """Completes names of folders, and of files with these endings."""

    def complete(incomplete):
        typed = pathlib.Path(incomplete)
        is_folder = not incomplete or incomplete.endswith("/")
        folder, start = (typed, "") if is_folder else (typed.parent, typed.name)
        found = []
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.name.startswith(start) and not entry.name.startswith("."):
                if entry.is_dir():
                    found.append(f"{entry}/")
                elif entry.suffix in endings:
                    found.append(str(entry))
        return found

    return complete


Model = Annotated[pathlib.Path, model_argument()]
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
