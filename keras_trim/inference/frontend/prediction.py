"""Batches and the progress bar of `Engine.predict`."""

import contextlib
import itertools
import sys

import numpy as np


def is_array(x):
    """Whether data is an array or a structure of arrays, rather than an iterable of batches."""
    return isinstance(x, np.ndarray | list | tuple | dict) or hasattr(x, "__array__")


def batches_of(x, batch_size, steps):
    """Yields the inputs of each batch of a dataset, loader or generator.

    Args:
        x: Anything but arrays that `model.predict` takes. Without Keras, any iterable of batches:
            each the inputs, or a tuple that begins with them.
        batch_size: Integer or None, as for `model.predict`.
        steps: Integer or None. Maximum number of batches.

    Raises:
        ValueError: if there is no batch.
    """
    try:
        import keras  # noqa: F401
    except ImportError:
        batches = (b[0] if isinstance(b, tuple) else b for b in itertools.islice(_iter(x), steps))
        first = next(batches, None)
        if first is None:
            raise ValueError(
                "`x` must hold at least one batch. Received: an iterable without any"
            ) from None
        yield first
        yield from batches
        return
    from keras_trim.batches import iterate

    yield from iterate(x, batch_size, steps, name="x")


def _iter(x):
    try:
        return iter(x)
    except TypeError:
        raise ValueError(
            "`x` must be an array, a list or dictionary of arrays, or an iterable of batches. "
            f"Received: {type(x).__name__}"
        ) from None


def count_batches(x, steps):
    """Returns the number of batches of an iterable of batches, or None if it is unknown."""
    try:
        return steps or len(x)
    except TypeError:  # a generator, or endless data
        return None


@contextlib.contextmanager
def progress(verbose, total):
    """Shows a progress bar; yields a function to call after each batch.

    Args:
        verbose: As for `model.predict`: 0, 1, or 2 for the final line only; "auto" is 1.
        total: Integer, the number of batches, or None if unknown.
    """
    verbose = 1 if verbose == "auto" else verbose
    if verbose not in (0, 1, 2):
        raise ValueError(f"`verbose` must be 0, 1, 2 or 'auto'. Received: verbose={verbose!r}")
    if not verbose:
        yield lambda: None
        return
    count = itertools.count(1)
    try:
        from keras.utils import Progbar
    except ImportError:
        done = 0

        def advance():
            nonlocal done
            done = next(count)
            if verbose == 1:
                print(f"\r{done}/{total or '?'}", end="", file=sys.stdout, flush=True)

        yield advance
        print(f"\r{done}/{total or done}", flush=True)
        return
    bar = Progbar(total, verbose=verbose, unit_name="step")
    done = 0

    def advance():
        nonlocal done
        done = next(count)
        bar.update(done, finalize=done == total)

    yield advance
    if done != total:
        bar.update(done, finalize=True)
