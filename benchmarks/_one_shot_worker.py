"""Measures the cost of one-shot pruning in its own process, and prints JSON."""

import json
import sys
import time

import numpy as np

from benchmarks._memory import peak_growth


def sparsegpt_4096():
    """Returns the seconds of SparseGPT on a 4096x4096 product, given the moments of its inputs."""
    from keras_trim.one_shot.sparsegpt import sparsegpt
    from keras_trim.one_shot.units import Units

    size, rng = 4096, np.random.default_rng(0)
    x = rng.standard_normal((2 * size, size), "float32")
    h = (x.T @ x).astype("float64")[None] / len(x)
    weights = rng.standard_normal((1, size, size))
    units = Units((1, size, size), size, size * size // 2)
    seconds, cpu_seconds = [], []
    for _ in range(3):
        start, cpu = time.perf_counter(), time.process_time()
        pruned = sparsegpt(weights, h, units)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu)
    return {
        "seconds": min(seconds),
        "cpu_seconds": min(cpu_seconds),  # over all cores, unaffected by other load
        "all": seconds,
        "zeros": float(np.mean(pruned == 0)),
    }


def mobilenet():
    """Measures `reconstruct` on MobileNetV1 224 with random weights and 512 images."""
    import keras

    import keras_trim

    model = keras.applications.MobileNet(weights=None)
    x = np.random.default_rng(0).random((512, 224, 224, 3), "float32")
    keras_trim.prune(model, 0.0, calibration_data=x[:4], method="magnitude")  # imports, allocators
    start, cpu = time.perf_counter(), time.process_time()
    grown = peak_growth(lambda: keras_trim.prune(model, 0.75, calibration_data=x))
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,  # over all cores
        "bytes": grown,
        "weights": sum(w.size for w in model.get_weights()),
    }


if __name__ == "__main__":
    print(json.dumps({"sparsegpt_4096": sparsegpt_4096, "mobilenet": mobilenet}[sys.argv[1]]()))
