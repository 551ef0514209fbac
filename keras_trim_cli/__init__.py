"""The command `keras-trim`.

It is a package of its own because importing anything of `keras_trim` imports Keras, which takes
seconds: `--help`, usage errors and shell completion do without. The commands import it once they
know that there is work to do.
"""

import codecs
import os
import sys


def main():
    """Runs the command line and exits; the entry point `keras-trim`."""
    _open_closed_streams()
    _write_in_any_encoding()
    try:
        from keras_trim_cli.app import app
    except ImportError as error:
        # Whatever of the extra is missing; an error of our own modules must not hide behind it.
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(
            'keras-trim: the command line needs Typer: pip install "keras-trim[cli]". '
            f"Received: {error}"
        )
    except KeyboardInterrupt:
        print("keras-trim: interrupted", file=sys.stderr)
        sys.exit(130)
    app(prog_name="keras-trim")


# What stands for characters that an encoding such as cp1252 lacks.
_PLAIN = {"─": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+"}
_PLAIN |= {"█": "#", "░": ".", "→": ">", "…": "~", "•": "*"}


def _write_in_any_encoding():
    """Names of layers are in any script, and tables are drawn by lines: no console has all."""
    codecs.register_error("keras-trim", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="keras-trim")


def _plain(error):
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end


def _open_closed_streams():
    """Leads nowhere what is closed (`>&-`), else the next file that is opened gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
