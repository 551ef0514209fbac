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

    kind, suffix = ("litert", "tflite") if name == "litert" else ("onnx", "onnx")
    with tempfile.TemporaryDirectory(prefix="keras_trim_") as folder:
        path = pathlib.Path(folder, f"model.{suffix}")
        keras_trim.export(model, path, format=kind)
        data = path.read_bytes()
    return _litert(data, threads) if name == "litert" else _onnxruntime(data, threads)


def _litert(data, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=threads)

    # By signature: the interpreter's own order of inputs and outputs is not the model's.
    (key,) = interpreter.get_signature_list()
    signature = interpreter.get_signature_list()[key]
    runner = interpreter.get_signature_runner(key)

    def run(inputs):
        named = dict(zip(signature["inputs"], inputs, strict=True))
        outputs = runner(**named)
        return [outputs[name] for name in signature["outputs"]]

    return run


def _onnxruntime(data, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


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
