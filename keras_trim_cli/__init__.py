"""The command `keras-trim`.

It is a package of its own because importing anything of `keras_trim` imports Keras, which takes
seconds: `--help`, usage errors and shell completion do without. The commands import it once they
know that there is work to do.
"""

import sys


def main():
    """Runs the command line and exits; the entry point `keras-trim`."""
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
