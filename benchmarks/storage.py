"""Sizes of sparse model files, and the speed and memory of writing and reading them.

    python -m benchmarks.storage --data mnist.npz [--only sizes|speed|memory] [--quick]

`sizes`: each model at each sparsity, next to gzip -9 of Keras's own weights file (how TFMOT's
guides shrink a stripped model) and the order-0 entropy of masks and byte planes. The MNIST network
is trained here, dense and then pruned. The others have kernels drawn from a normal distribution.
`speed`: arrays in memory to a file in memory and back, on one core. `memory`: how much the resident
size of a process grows while it loads, relative to the decoded weights.
"""

import argparse
import io
import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks._common import (
    BACKENDS,
    OUR_PACKAGES,
    QUICK_RESULTS,
    RESULTS,
    package_versions,
    write_result,
)

SPARSITIES = (0.5, 0.8, 0.9, 0.95, "2:4")
ROOT = pathlib.Path(__file__).resolve().parent.parent


def _lstm(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((40,), dtype="int32"),
            layers.Embedding(5000, 128),
            layers.LSTM(512),
            layers.Dense(5000),
        ]
    )


def _builders(keras):
    apps = keras.applications
    return {
        "MobileNetV1": lambda: apps.MobileNet(weights=None),
        "MobileNetV2": lambda: apps.MobileNetV2(weights=None),
        "ResNet50": lambda: apps.ResNet50(weights=None),
        "LSTM": lambda: _lstm(keras),
    }


def _normal_kernels(model, trained_statistics=False):
    """Draws kernels. With `trained_statistics`, also draws the other weights, as if trained.

    Initial biases are zero and initial normalization statistics are one, so they would compress to
    almost nothing.
    """
    rng = np.random.default_rng(0)
    drawn = []
    for weight in model.get_weights():
        if weight.ndim >= 2:
            fan_in = np.prod(weight.shape[:-1] if weight.shape[-1] > 1 else weight.shape[:2])
            weight = rng.standard_normal(weight.shape, "float32") * np.float32((2 / fan_in) ** 0.5)
        elif trained_statistics:
            weight = weight + rng.standard_normal(weight.shape, "float32") * np.float32(0.1)
        drawn.append(weight)
    model.set_weights(drawn)


def _prune(model, sparsity):
    import keras_trim

    if sparsity == "2:4":
        return keras_trim.prune(model, 0.5, sparsity_m_by_n=(2, 4))
    return keras_trim.prune(model, sparsity)


def _trained_cnns(keras, path, quick):
    """Yields sparsity and the MNIST network pruned to it: one epoch dense, then one pruned."""
    import keras_trim
    from benchmarks import _models

    with np.load(path) as data:
        x, y = data["x_train"][..., np.newaxis] / np.float32(255), data["y_train"]
        x_test, y_test = data["x_test"][..., np.newaxis] / np.float32(255), data["y_test"]
    if quick:
        x, y = x[:6400], y[:6400]
    keras.utils.set_random_seed(0)
    dense = _models.build_cnn(keras)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    dense.compile("adam", loss, metrics=["accuracy"])
    dense.fit(x, y, batch_size=128, epochs=1, verbose=0)
    steps = -(-len(x) // 128)
    for sparsity in SPARSITIES:
        model = _models.build_cnn(keras)
        model.set_weights(dense.get_weights())
        final = 0.5 if sparsity == "2:4" else sparsity
        schedule = keras_trim.PolynomialDecay(0.0, final, 0, steps * 2 // 3, frequency=20)
        nm = (2, 4) if sparsity == "2:4" else None
        keras_trim.prune_low_magnitude(model, schedule, sparsity_m_by_n=nm)
        model.compile("adam", loss, metrics=["accuracy"])
        callbacks = [keras_trim.UpdatePruningStep()]
        model.fit(x, y, batch_size=128, epochs=1, verbose=0, callbacks=callbacks)
        keras_trim.strip_pruning(model)
        accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
        yield sparsity, model, accuracy


def entropy_bits(symbols):
    """Returns the minimum bits of an order-0 code for these symbols, without its table."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-np.sum(counts * np.log2(counts / counts.sum())))


def bound_bytes(array):
    """Returns the entropy of an array's mask and byte planes of nonzero values, in bytes."""
    flat = np.ascontiguousarray(array).reshape(-1)
    mask = flat.view(f"u{flat.itemsize}") != 0
    planes = flat[mask].view(np.uint8).reshape(-1, flat.itemsize)
    return (entropy_bits(mask) + sum(entropy_bits(plane) for plane in planes.T)) / 8


def measure_sizes(model, with_gzip):
    """Returns a dict of sizes in bytes, and the ratios of interest."""
    import keras_trim
    from keras_trim.storage import quantization

    arrays = [np.asarray(variable.value) for variable in model.weights]
    raw = sum(array.nbytes for array in arrays)
    bound = sum(map(bound_bytes, arrays))
    int8_bound = 0.0
    for array in arrays:
        quantized = quantization.quantize(array, "int8") if array.ndim >= 2 else None
        int8_bound += bound_bytes(array if quantized is None else quantized[0])
        int8_bound += 0 if quantized is None else bound_bytes(quantized[1])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.ktrim"
        exact = keras_trim.save(model, path)
        rounded = keras_trim.save(model, path.with_name("int8.ktrim"), values="int8")
        loaded = keras_trim.load_arrays(path)
        for name, array in loaded.items():
            assert array.dtype == np.float32 or name.startswith("seeds"), name
        assert sorted(a.tobytes() for a in arrays) == sorted(
            a.tobytes() for name, a in loaded.items() if not name.startswith("seeds")
        )
        model.save(path.with_name("model.keras"))
        recompressed = keras_trim.compress_keras(path.with_name("model.keras")).new_bytes
    stored = sum(array.stored_bytes for array in exact.arrays)
    relative = max(a.largest_error / a.largest_value for a in rounded.arrays if a.largest_value)
    result = {
        "weights_bytes": raw,
        "zeros": sum(array.size - int(np.count_nonzero(array)) for array in arrays)
        / sum(array.size for array in arrays),
        "ktrim_bytes": exact.file_bytes,
        "ktrim_weights_bytes": stored,
        "entropy_bound_bytes": bound,
        "int8_bytes": rounded.file_bytes,
        "int8_entropy_bound_bytes": int8_bound,
        "int8_largest_error_over_largest_weight": relative,
        "keras_recompressed_bytes": recompressed,
        "factor": raw / exact.file_bytes,
        "bound_factor": raw / bound,
        "int8_factor": raw / rounded.file_bytes,
        "int8_bound_factor": raw / int8_bound,
        "weights_over_bound": stored / bound,
    }
    if with_gzip:
        gzipped = keras_trim.size_table(model, ("gzip",))["gzip"].num_bytes
        result |= {"gzip_bytes": gzipped, "gzip_over_ktrim": gzipped / exact.file_bytes}
    return result


def sizes(data, quick):
    import keras

    results = {}
    if data:
        results["MNIST CNN, trained"] = {}
        for sparsity, model, accuracy in _trained_cnns(keras, data, quick):
            measured = {"test_accuracy": accuracy, **measure_sizes(model, True)}
            results["MNIST CNN, trained"][str(sparsity)] = measured
            print("MNIST CNN", sparsity, measured, flush=True)
    for name, build in _builders(keras).items():
        variants = [("", False)]
        if name == "MobileNetV1":
            variants.append((", normalizations as after training", True))
        for suffix, trained in variants:
            results[name + suffix] = {}
            for sparsity in SPARSITIES[1:3] if quick or trained else SPARSITIES:
                model = build()
                _normal_kernels(model, trained)
                _prune(model, sparsity)
                measured = measure_sizes(model, not quick and sparsity != 0.5)
                results[name + suffix][str(sparsity)] = measured
                print(name + suffix, sparsity, measured, flush=True)
            if quick:
                return results
    return results


def _speed_arrays(sparsity, num_weights):
    """Returns arrays with the sizes of large layers' weights."""
    rng = np.random.default_rng(0)
    arrays = {}
    for index in range(num_weights >> 20):
        weight = rng.standard_normal((1024, 1024), "float32")
        if sparsity == "2:4":
            groups = weight.reshape(256, 4, 1024)
            np.put_along_axis(groups, np.argsort(np.abs(groups), axis=1)[:, :2], 0, axis=1)
        elif sparsity:
            weight[np.abs(weight) < np.quantile(np.abs(weight), sparsity)] = 0
        arrays[str(index)] = weight
    return arrays


def speed(quick):
    from keras_trim.storage.reader import Reader
    from keras_trim.storage.writer import Writer

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = {}
    for sparsity in (0.0, *SPARSITIES):
        arrays = _speed_arrays(sparsity, 1 << (21 if quick else 23))
        megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
        encode, decode = [], []
        for _ in range(3 if quick else 7):
            buffer = io.BytesIO()
            start = time.perf_counter()
            writer = Writer(buffer)
            for name, array in arrays.items():
                writer.write_array(name, array)
            writer.finish({})
            encode.append(time.perf_counter() - start)
            start = time.perf_counter()
            with Reader(io.BytesIO(buffer.getvalue())) as reader:
                decoded = {name: reader.read_array(name) for name in arrays}
            decode.append(time.perf_counter() - start)
        assert all(decoded[name].tobytes() == array.tobytes() for name, array in arrays.items())
        results[str(sparsity)] = {
            "encode_mb_per_second": megabytes / statistics.median(encode),
            "decode_mb_per_second": megabytes / statistics.median(decode),
            "encode_seconds": encode,
            "decode_seconds": decode,
            "megabytes": megabytes,
        }
        print("speed", sparsity, results[str(sparsity)], flush=True)
    return results


def memory(quick):
    """Returns a dict: reader -> backend -> peak growth over the size of the decoded weights.

    Each case runs in its own process.
    """
    import keras

    import keras_trim

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        model = _builders(keras)["MobileNetV1" if quick else "ResNet50"]()
        _normal_kernels(model)
        _prune(model, 0.9)
        decoded = sum(keras.ops.convert_to_numpy(v).nbytes for v in model.weights)
        keras_trim.save(model, pathlib.Path(folder) / "model.ktrim")
        model.save(pathlib.Path(folder) / "model.keras")
        small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        keras_trim.save(small, pathlib.Path(folder) / "small.ktrim")
        small.save(pathlib.Path(folder) / "small.keras")
        whats = [("load_arrays", "jax")]
        whats += itertools.product(("load", "keras.models.load_model"), BACKENDS)
        for what, backend in whats:
            runs = []
            for _ in range(1 if quick else 3):
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks._storage_memory", what, folder],
                    capture_output=True,
                    text=True,
                    check=True,
                    cwd=ROOT,
                    env={**os.environ, "KERAS_BACKEND": backend},
                )
                runs.append(int(done.stdout.split()[-1]) / decoded)
            result = {"peak_over_decoded": statistics.median(runs), "runs": runs}
            results.setdefault(what, {})[backend] = result
            print("memory", what, backend, result, flush=True)
    return {"decoded_bytes": decoded, "peaks": results}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, help="MNIST as an .npz file")
    parser.add_argument("--only", choices=("sizes", "speed", "memory"))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    parts = {
        "sizes": lambda: sizes(args.data, args.quick),
        "speed": lambda: speed(args.quick),
        "memory": lambda: memory(args.quick),
    }
    versions = {"keras-trim": package_versions((*OUR_PACKAGES, "zstandard"))}
    folder = QUICK_RESULTS if args.quick else RESULTS
    for name, measure in parts.items():
        if args.only in (None, name):
            settings = {"quick": args.quick, "backend": os.environ.get("KERAS_BACKEND", "")}
            write_result(folder, f"storage_{name}", settings, versions, measure())


if __name__ == "__main__":
    main()
