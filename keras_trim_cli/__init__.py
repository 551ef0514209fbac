"""The command `keras-trim`.

This is a separate package because importing any part of `keras_trim` imports Keras, which takes
seconds. `--help`, usage errors and shell completion do not need it. Commands import it only when
there is work to do.
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
        # A missing package of the extra. Do not hide import errors of our own modules.
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


# Replacements for characters that encodings such as cp1252 lack.
_PLAIN = {"─": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+"}
_PLAIN |= {"█": "#", "░": ".", "→": ">", "…": "~", "•": "*"}


def _write_in_any_encoding():
    """Replaces characters that the console's encoding lacks, in layer names and table borders."""
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
    """Opens the null device for closed streams (`>&-`), whose descriptors files would reuse."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
