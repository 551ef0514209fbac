"""Measures the gain of each optional algorithm: networks run with and without it, in turns."""

import statistics
import time

import numpy as np

from benchmarks import _inference_models
from benchmarks._common import median_ratio

# Feature -> (kind of workload, or None for any; a part of the candidate's name).
FEATURES = {
    "kn2row": ("convolution", "kn2row"),
    "lane_masks": ("convolution", "masked"),
    "im2col": ("convolution", "im2col"),
    "row_tiles": ("spmm", "tiles of"),
    "packing": ("spmm", "packed"),
    "split_pixels": ("pointwise", "split"),
    "ring": ("pointwise", "ring"),
    "sell": ("spmv", "SELL"),
    "masked_planes": ("depthwise", "masked"),
    "tiling": ("tiling", None),
    "inter_op": ("branches", "inter-op"),
}
LEAST_GAIN = 1.02  # a network's speedup that justifies the code


def _tuner(feature):
    """Returns a tuner that skips a feature's candidates, or considers all of them for `None`."""
    from keras_trim.inference.lowering.tuner import Tuner

    kind, name = FEATURES.get(feature, (None, None))

    class Without(Tuner):
        def admit(self, workload, candidates):
            if feature is None or workload[0] != kind:
                return candidates
            kept = candidates[:1] if name is None else [
                candidate for candidate in candidates if name not in str(candidate)
            ]  # fmt: skip
            return kept or candidates

    return Without()


def in_blocks(weights, rows=4):
    """Returns a network's weights with each kernel's zeros moved to blocks of `rows` outputs."""
    blocked = []
    for weight in weights:
        size, outputs = int((weight == 0).sum()), weight.shape[-1]
        if weight.ndim < 2 or not size or outputs % rows:
            blocked.append(weight)
            continue
        groups = np.abs(weight).reshape(-1, rows).sum(axis=1)
        pruned = np.argsort(groups)[: size // rows]
        kept = np.where(weight == 0, 1e-3, weight).reshape(-1, rows).copy()
        kept[pruned] = 0
        blocked.append(kept.reshape(weight.shape).astype(np.float32))
    return blocked


def measure(name, path, features, num_threads, rounds, is_blocked=False):
    """Times a network with all features, and without each of the given ones.

    Args:
        name: String. A key of `_inference_models.NETWORKS`.
        path: Path of an NPZ file with its weights.
        features: List of keys of `FEATURES`.
        num_threads, rounds: Integers.
        is_blocked: Boolean. Whether zeros are in blocks of four outputs.

    Returns:
        Dict: feature -> dict with `gain`, the factor by which the network is slower without it
        (median over rounds), and the median milliseconds, `ms_with` and `ms_without`.
    """
    import keras

    from keras_trim.inference import Engine

    model = _inference_models.build(keras, name, path)
    if is_blocked:
        model.set_weights(in_blocks(model.get_weights()))
    x = _inference_models.make_input(name)
    engines = {key: Engine(model, num_threads, tuner=_tuner(key)) for key in (None, *features)}
    expected = engines[None](x)
    for engine in engines.values():
        np.testing.assert_allclose(engine(x), expected, atol=1e-3 * np.abs(expected).max())
    times = {key: [] for key in engines}
    for _ in range(rounds):
        for key, engine in engines.items():
            times[key].append(_fastest_of(lambda engine=engine: engine(x)))
    return {
        key: {
            "gain": median_ratio(times[key], times[None]),
            "ms_with": statistics.median(times[None]),
            "ms_without": statistics.median(times[key]),
        }
        for key in features
    }


def _fastest_of(run, count=5):
    """Returns the milliseconds of the fastest run, after one that brings weights into caches."""
    run()
    best = float("inf")
    for _ in range(count):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best
