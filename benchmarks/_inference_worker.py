"""Commands of a process with one runtime: load a network, answer, measure.

DeepSparse needs its own environment, so this module only imports NumPy.
"""

import os
import pathlib
import sys
import tempfile
import time
import zipfile

import numpy as np

from benchmarks import _inference_models
from benchmarks._common import serve

_state = {}


# Each of these imports what it needs and returns a function that loads the network.


def _keras_trim(name, path, num_threads):
    if path.endswith(".engine"):
        sys.modules["keras"] = None  # simulate a machine without Keras
    from keras_trim.inference import Engine

    if path.endswith(".engine"):
        return lambda: Engine.load(path, num_threads=num_threads)
    import keras

    model = _inference_models.build(keras, name, path)
    return lambda: Engine(model, num_threads=num_threads)


def _litert(name, path, num_threads):
    from ai_edge_litert.interpreter import Interpreter

    def load():
        interpreter = Interpreter(path, num_threads=num_threads)
        interpreter.allocate_tensors()
        source = interpreter.get_input_details()[0]["index"]
        target = interpreter.get_output_details()[0]["index"]

        def run(x):
            interpreter.set_tensor(source, x)
            interpreter.invoke()
            return interpreter.get_tensor(target)

        return run

    return load


def _onnxruntime(name, path, num_threads):
    import onnxruntime

    def load():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0].name
        return lambda x: session.run(None, {source: x})[0]

    return load


def _openvino(name, path, num_threads):
    import openvino

    def load():
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": num_threads,
            "INFERENCE_PRECISION_HINT": "f32",  # for operations that are not int8
        }
        with tempfile.TemporaryDirectory() as folder:
            if zipfile.is_zipfile(path):
                zipfile.ZipFile(path).extractall(folder)
            file = f"{folder}/network.xml" if zipfile.is_zipfile(path) else path
            compiled = openvino.Core().compile_model(file, "CPU", settings)
        request = compiled.create_infer_request()
        return lambda x: request.infer([x])[0]

    return load


def _deepsparse(name, path, num_threads):
    os.environ["NM_DISABLE_ANALYTICS"] = "True"
    import deepsparse

    def load():
        engine = deepsparse.compile_model(path, batch_size=1, num_cores=num_threads)
        return lambda x: engine.run([x])[0]

    return load


_LOADERS = {
    "keras-trim": _keras_trim,
    "LiteRT": _litert,
    "LiteRT, sparse file": _litert,
    "LiteRT, int8": _litert,
    "ONNX Runtime": _onnxruntime,
    "ONNX Runtime, int8": _onnxruntime,
    "OpenVINO": _openvino,
    "OpenVINO, int8": _openvino,
    "DeepSparse": _deepsparse,
}
_CHANNELS_FIRST = ("ONNX Runtime", "OpenVINO", "DeepSparse")


def _input(runtime, name, seed):
    x = _inference_models.make_input(name, seed)
    if runtime.startswith(_CHANNELS_FIRST) and x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x)


def load(runtime, name, path, num_threads):
    """Loads the network and answers once.

    Returns:
        Dict: seconds for `imports` (plus building the Keras model, if the engine reads one) and for
        `load` (including the first answer).
    """
    x = _input(runtime, name, 0)
    start = time.perf_counter()
    loader = _LOADERS[runtime](name, path, num_threads)
    imported = time.perf_counter()
    run = loader()
    run(x)
    _state.update(run=run, x=x, runtime=runtime, name=name)
    return {"imports": imported - start, "load": time.perf_counter() - imported}


def answer(seed):
    """Returns the output for the random input of that seed, flat."""
    x = _input(_state["runtime"], _state["name"], seed)
    return np.asarray(_state["run"](x), np.float64).reshape(-1).tolist()


def measure(seconds, least):
    """Returns the seconds of consecutive runs: at least `least` of them, for at least `seconds`."""
    run, x = _state["run"], _state["x"]
    for _ in range(2):
        run(x)
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - start)
    return times


def time_layers():
    """Returns the time of each operation of the engine, from its summary."""
    rows = _state["run"].summary(_state["x"]).rows
    return [
        {
            "layer": row.layer,
            "operation": row.operation,
            "kernel": row.kernel,
            "shape": row.shape,
            "sparsity": row.sparsity,
            "multiply_adds": int(row.multiply_adds),
            "kept": int(row.kept),
            "ms": 1e3 * row.seconds,
        }
        for row in rows
    ]


def save_engine(path):
    """Writes the loaded engine to a file."""
    _state["run"].save(path)


def resident_bytes():
    """Returns the resident memory of the process (Linux)."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure_without(**arguments):
    """Calls `_inference_without.measure`."""
    from benchmarks import _inference_without

    return _inference_without.measure(**arguments)


if __name__ == "__main__":
    serve(load, answer, measure, time_layers, save_engine, resident_bytes, measure_without)
