"""The command `keras-trim`.

It is a package of its own because importing anything of `keras_trim` imports Keras, which takes
seconds: `--help`, usage errors and shell completion do without. The commands import it once they
know that there is work to do.
"""

import os
import sys


def main():
    """Runs the command line and exits; the entry point `keras-trim`."""
    _open_closed_streams()
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


def _open_closed_streams():
    """Leads nowhere what is closed (`>&-`), else the next file that is opened gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
