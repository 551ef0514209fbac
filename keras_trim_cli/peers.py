"""Runs of a model in other runtimes, to compare the sparse engine with."""

import pathlib
import tempfile
import time

import numpy as np

PEERS = ("litert", "onnxruntime")


def peer(name, model, threads):
    """A function from a flat list of arrays to a flat list of outputs.

    Args:
        name: String, one of `PEERS`.
        model: Keras model.
        threads: Integer.

    Raises:
        ImportError, ValueError: if the model cannot be exported for the runtime; with the cure.
    """
    import keras_trim
    from keras_trim.exporters import litert, onnx

    suffix = "tflite" if name == "litert" else "onnx"
    with tempfile.TemporaryDirectory(prefix="keras_trim_") as folder:
        path = pathlib.Path(folder, f"model.{suffix}")
        keras_trim.export(model, path)
        data = path.read_bytes()
    if name == "litert":
        return litert.runner(data, [tensor.name for tensor in model.inputs], threads)
    return onnx.runner(data, threads)


def time_in_turns(runs, inputs, seconds):
    """Median seconds of each of several functions, which take turns.

    Args:
        runs: Dict: name -> function.
        inputs: What each function is called with.
        seconds: Float. How long to measure each.
    """
    times = {name: [] for name in runs}
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
