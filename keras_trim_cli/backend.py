"""Chooses Keras's backend and starts it quietly."""

import contextlib
import importlib.util
import json
import os
import pathlib
import signal

from keras_trim_cli.errors import CommandError

# In order of startup time: commands use no accelerator and little of the backend.
_PACKAGES = {"jax": "jax", "torch": "torch", "tensorflow": "tensorflow"}


def configured():
    """The backend that Keras would start with."""
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    folder = os.environ.get("KERAS_HOME")
    if not folder:  # as Keras does for users without a home directory, such as in containers
        home = os.path.expanduser("~")
        folder = pathlib.Path(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    try:
        return json.loads(pathlib.Path(folder, "keras.json").read_text())["backend"]
    except (OSError, ValueError, KeyError):
        return "tensorflow"  # Keras's own default


def choose():
    """Chooses a backend that is installed, unless the environment names one.

    Keras writes "tensorflow" into its configuration on first start, so that entry need not be the
    user's choice.

    Raises:
        CommandError: if none is installed, or the one in the environment is not.
    """
    name = configured()
    if _is_installed(name):
        return name
    if os.environ.get("KERAS_BACKEND"):
        raise CommandError(
            f"the backend of KERAS_BACKEND={name} is not installed or not supported: "
            f'pip install "keras-trim[{name if name in _PACKAGES else "jax"}]", or choose another '
            f"of {', '.join(_PACKAGES)}"
        )
    for name in _PACKAGES:
        if _is_installed(name):
            os.environ["KERAS_BACKEND"] = name
            return name
    raise CommandError('Keras needs a backend: pip install "keras-trim[jax]"')


def start():
    """Imports Keras and keras-trim. Call it within `silenced()`."""
    choose()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with postponed_interrupts():
        import keras_trim
    return keras_trim


@contextlib.contextmanager
def postponed_interrupts():
    """Postpones Ctrl-C to the end of the block: it may crash C++ libraries during their import."""
    received = []
    before = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        signal.raise_signal(signal.SIGINT)


def _is_installed(name):
    return name in _PACKAGES and importlib.util.find_spec(_PACKAGES[name]) is not None
