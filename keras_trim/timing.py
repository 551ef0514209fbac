"""Runs a model in each installed runtime, so that their times can be compared."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

PREDICT, BATCH, ENGINE = "model.predict", "model.predict_on_batch", "keras-trim"
# Other runtimes, with the packages for making a file and for running it.
OTHERS = {
    "litert": ("ai_edge_litert", "tensorflow"),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript", "torch"),
}
_FORMATS = {"litert": "litert", "onnxruntime": "onnx"}


def installed() -> list[str]:
    """Lists the runtimes that can be timed here: Keras, the engine, and others."""
    found = [PREDICT, BATCH]
    if _are_there(("numba", "platformdirs", "zstandard")):
        found.append(ENGINE)
    return found + [name for name, packages in OTHERS.items() if _are_there(packages)]


def _are_there(packages: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in packages)


def runner(name: str, model: keras.Model, num_threads: int) -> Callable[[Any], list[np.ndarray]]:
    """Returns a function from a model's inputs to a flat list of its outputs.

    Args:
        name: String, one of `installed()`.
        model: Keras model.
        num_threads: Integer. Keras's backends choose their own numbers.

    Raises:
        ImportError, ValueError: if this runtime cannot run the model. The message names the fix.
    """
    if name == PREDICT:
        return lambda x: keras.tree.flatten(model.predict(x, batch_size=num_examples(x), verbose=0))
    if name == BATCH:
        return lambda x: keras.tree.flatten(model.predict_on_batch(x))
    if name == ENGINE:
        from keras_trim.inference import Engine

        engine = Engine(model, num_threads=num_threads)
        run = lambda x: keras.tree.flatten(engine(x))  # noqa: E731
        run.engine = engine  # type: ignore[attr-defined]
        return run
    return _exported(name, model, num_threads)


def _exported(name: str, model: keras.Model, num_threads: int) -> Callable[[Any], list[Any]]:
    from keras_trim import exporters
    from keras_trim.exporters import litert, onnx

    made, prepared = exporters.make_prepared_file(model, _FORMATS[name])
    if name == "litert":
        run = litert.runner(made.data, prepared.argument_names, num_threads)
    else:
        run = onnx.runner(made.data, num_threads)
    dtypes = [tensor.dtype for tensor in prepared.model.inputs]

    def call(x: Any) -> list[Any]:
        # A file takes its own dtypes only, which are not those of a model in low precision.
        arrays = [
            np.asarray(array).astype(dtype, copy=False)
            for array, dtype in zip(keras.tree.flatten(x), dtypes, strict=True)
        ]
        return (
            litert.in_rows(run, arrays) if made.batch_size == 1 < num_examples(x) else run(arrays)
        )

    return call


def num_examples(x: Any) -> int:
    """Returns the number of examples in nested arrays, some of which may be `None`."""
    return len(next(array for array in keras.tree.flatten(x) if array is not None))


def time_in_turns(
    runs: dict[str, Callable[[Any], Any]], inputs: Any, seconds: float
) -> dict[str, float]:
    """Returns the median seconds of several functions that take turns.

    Taking turns makes other load on the machine slow all of them equally.

    Args:
        runs: Dict: name -> function.
        inputs: Argument of each function.
        seconds: Float. How long to time each.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    rounds = 10
    for _ in range(rounds):
        for name, run in runs.items():
            run(inputs)
            end = time.perf_counter() + seconds / rounds
            while not times[name] or time.perf_counter() < end:
                start = time.perf_counter()
                run(inputs)
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}
