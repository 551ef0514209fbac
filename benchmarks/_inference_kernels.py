"""Commands that measure single matrix products of the engine, and the machine's limits."""

import statistics
import time

import numpy as np

from benchmarks._common import serve
from keras_trim.inference.kernels.instructions import TRANSPOSE
from keras_trim.inference.lowering import spmm_candidates
from keras_trim.inference.lowering.lower import lower_graph
from keras_trim.inference.lowering.tuner import Tuner
from keras_trim.inference.runtime.executor import Executor


class _OneKind(Tuner):
    """A tuner that considers only the sparse candidates for a product, or only the dense ones."""

    def __init__(self, is_dense):
        super().__init__()
        self._is_dense = is_dense

    def admit(self, workload, candidates):
        kept = candidates
        if workload[0] == "spmm":
            kept = [tiling for tiling in candidates if (tiling.tile > 1) == self._is_dense]
        elif workload[0] == "spmv":
            kept = [name for name in candidates if (name == "dense rows") == self._is_dense]
        elif workload[0] == "convolution" and self._is_dense:
            kept = [name for name in candidates if name != "kn2row"]
        return kept or candidates


def _layer(shape, sparsity):
    """Builds a one-layer model: a convolution, or a dense layer if the image size is 0."""
    import keras

    size, kernel, inputs, outputs = shape
    if size == 0:
        layer, x_shape = keras.layers.Dense(outputs), (inputs,)
    else:
        layer = keras.layers.Conv2D(outputs, kernel, padding="same")
        x_shape = (size, size, inputs)
    model = keras.Sequential([keras.Input(x_shape), layer])
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(weight.shape, np.float32) for weight in model.get_weights()]
    flat = weights[0].reshape(-1)
    flat[rng.permutation(flat.size)[: round(flat.size * sparsity)]] = 0
    model.set_weights(weights)
    return model, rng.standard_normal((1, *x_shape), np.float32)


def _onnx_layer(shape, weights):
    """Builds the same layer for ONNX Runtime, channels first."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    size, kernel, inputs, outputs = shape
    names = ["x", "kernel", "bias"]
    if size:
        pads = [(kernel - 1) // 2] * 4
        node = helper.make_node("Conv", names, ["y"], kernel_shape=[kernel] * 2, pads=pads)
        weights = [weights[0].transpose(3, 2, 0, 1), weights[1]]
        x_shape, y_shape = (1, inputs, size, size), (1, outputs, size, size)
    else:
        node = helper.make_node("Gemm", names, ["y"])
        x_shape, y_shape = (1, inputs), (1, outputs)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y_shape)],
        [
            numpy_helper.from_array(np.ascontiguousarray(weight), name)
            for weight, name in zip(weights, names[1:], strict=True)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"x": x})[0]


def time_product(shape, sparsities, seconds, rounds):
    """Measures one layer's milliseconds at each sparsity on one thread.

    For the engine, only the matrix product counts, because consecutive layers keep its layout.

    Returns:
        Dict: `sparse` and `dense` (the engine's best variant of either kind, a list each) and
        `ONNX Runtime` (whose time does not depend on the sparsity).
    """
    from keras_trim.inference.frontend.importer import import_model
    from keras_trim.inference.ir.rewrites import rewrite

    # Both kinds are candidates at any density.
    spmm_candidates._ALWAYS_SPARSE, spmm_candidates._ALWAYS_DENSE = -1, 2
    runs = {}
    for sparsity in sparsities:
        model, x = _layer(shape, sparsity)
        graph = rewrite(import_model(model))
        expected = model(x)
        for kind in ("sparse", "dense"):
            program = lower_graph(graph, [x.shape], 1, _OneKind(kind == "dense"))
            execution = Executor(program, 1)
            execution.set_inputs([x])
            (found,) = execution.run()
            if not np.allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()):
                raise ValueError(f"Wrong result. Received: {shape=}, {sparsity=}, {kind=}")
            runs[kind, sparsity] = _products(execution)
    run = _onnx_layer(shape, model.get_weights())
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x
    runs["ONNX Runtime", None] = lambda: run(x)
    times = {key: [] for key in runs}
    for _ in range(rounds):
        for key, function in runs.items():
            times[key].append(_median_ms(function, seconds))
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {
        "sparsities": sparsities,
        "sparse": [medians["sparse", sparsity] for sparsity in sparsities],
        "dense": [medians["dense", sparsity] for sparsity in sparsities],
        "ONNX Runtime": medians["ONNX Runtime", None],
    }


def _products(execution):
    """Returns a function that runs a program without reading the input or changing layouts."""
    codes = execution.program.table[:, 0]
    (step,) = execution.program.steps
    rows = [i for i in range(*step) if codes[i] != TRANSPOSE.code]

    def run():
        execution.run_step((rows[0], rows[-1] + 1))

    return run


def _median_ms(function, seconds, least=3):
    function()
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def measure_machine(num_threads):
    """Measures peak FLOP/s, and bytes per second read, or copied (read and written)."""
    from benchmarks import _machine

    return _machine.measure(num_threads)


if __name__ == "__main__":
    serve(time_product, measure_machine)
