"""The command-line app: registers the commands and handles their errors."""

import importlib
import os
import signal
import sys
import traceback

import typer
import typer.core

from keras_trim_cli import streams
from keras_trim_cli.errors import describe

# In the order of the help. Each module has a function with the command's name.
_COMMANDS = (
    "report",
    "prune",
    "sensitivity",
    "compress",
    "decompress",
    "diff",
    "export",
    "check",
    "bench",
)


class _Group(typer.core.TyperGroup):
    """Reports a failure as one line on standard error: exit code 1, or 2 for wrong usage."""

    def main(self, args=None, prog_name=None, standalone_mode=True, **extra):
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
        except BrokenPipeError:  # `keras-trim ... | head`
            _close_stdout()
            code = 1
        except (KeyboardInterrupt, typer.Abort):
            code = 130
        except Exception as error:
            if streams.debugging():
                traceback.print_exc()
            code = getattr(error, "exit_code", 1)
            if hasattr(error, "format_message"):  # of the parser
                _print_usage_error(error)
            else:
                _print_error(describe(error))
                _close_stdout()
        if code == 130:
            _print_error("interrupted")
        if standalone_mode:
            # The output is complete, and Ctrl-C while backends shut down would print a traceback.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit(code or 0)
        return code


def _print_usage_error(error):
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "keras-trim"
    message = " ".join(error.format_message().split()).rstrip(".")
    if not message:  # no arguments: the help was shown instead
        return
    end = "" if message.endswith("?") else "."
    print(f"{command}: {message}{end} Try: {command} --help", file=sys.stderr)


def _print_error(message):
    print(f"keras-trim: {message}", file=sys.stderr, flush=True)


def _close_stdout():
    """Drops unwritten output, which Python would try to write again, and fail, when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="keras-trim",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value):
    if value:
        from importlib.metadata import version

        print(f"keras-trim {version('keras-trim')}")
        raise typer.Exit()


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
):
    """Inspect, prune, store and check sparse Keras models.

    \b
    Examples:
      keras-trim report model.keras --html report.html
      keras-trim prune model.keras pruned.keras --sparsity 0.8
      keras-trim compress pruned.keras pruned.ktrim

    \b
    Every command takes --json, for scripts.
    Exit codes: 0 success; 1 failure, or a check says no; 2 wrong usage.
    KERAS_BACKEND chooses the backend; NO_COLOR turns colors off.
    """


for _name in _COMMANDS:
    _function = getattr(importlib.import_module(f"keras_trim_cli.commands.{_name}"), _name)
    app.command(_name, no_args_is_help=True)(_function)
