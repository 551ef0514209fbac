"""Measures the gain of each optional algorithm: networks run with and without it, in turns."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import _inference_models
from benchmarks._common import median_ratio


class Feature(NamedTuple):
    """An optional algorithm.

    Args:
        title: String.
        kind: String. The kind of workload that it is a candidate for.
        has: Function: candidate -> whether it belongs to this algorithm.
    """

    title: str
    kind: str
    has: Callable


def _named(part):
    return lambda candidate: part in str(candidate)


FEATURES = {
    "kn2row": Feature("kn2row", "convolution", _named("kn2row")),
    "lane_masks": Feature("lane masks, not padding", "convolution", _named("masked")),
    "im2col": Feature("im2col", "convolution", _named("im2col")),
    "row_tiles": Feature("row tiles of sparse weights", "spmm", _named("tiles of")),
    "packing": Feature("packed activations", "spmm", _named("packed")),
    "split_pixels": Feature("pixels split over threads", "pointwise", _named("split")),
    "ring": Feature("sums passed on in a ring", "pointwise", _named("ring")),
    "sell": Feature("SELL", "spmv", _named("SELL")),
    "masked_planes": Feature("masked planes", "depthwise", _named("masked")),
    "tiling": Feature("layer tiling", "tiling", lambda bands: bands > 1),
    "inter_op": Feature("inter-op threads", "branches", _named("inter-op")),
}
LEAST_GAIN = 1.02  # a network's speedup that justifies the code


def _tuner(cache, feature=None):
    """Returns a tuner that considers all candidates, or skips those of a feature.

    Args:
        cache: `TuningCache`, shared by all tuners of a network: engines without a feature then
            differ only in the layers that have its candidates.
        feature: String or `None`.
    """
    from keras_trim.inference.lowering.tuner import Tuner

    class Without(Tuner):
        def __init__(self):
            super().__init__(cache)
            self.chosen = set()  # features that the fastest candidates belong to

        def admit(self, workload, candidates):
            kept = [each for each in candidates if feature not in features_of(workload, each)]
            return kept or candidates

        def known(self, workload, candidates):
            candidate = super().known(workload, candidates)
            if candidate is not None:
                self.chosen |= features_of(workload, candidate)
            return candidate

        def note(self, workload, candidates, candidate):
            super().note(workload, candidates, candidate)
            self.chosen |= features_of(workload, candidate)

    return Without()


def features_of(workload, candidate):
    """Returns the set of the features that a candidate for a workload belongs to."""
    return {
        key
        for key, feature in FEATURES.items()
        if workload[0] == feature.kind and feature.has(candidate)
    }


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
        Dict: feature -> `None` if no layer's fastest candidate belongs to it, else a dict with
        `gain`, the factor by which the network is slower without it (median over rounds), and the
        median milliseconds, `ms_with` and `ms_without`.
    """
    import keras

    from keras_trim.inference import Engine
    from keras_trim.inference.lowering.tuning_cache import TuningCache

    model = _inference_models.build(keras, name, path)
    if is_blocked:
        model.set_weights(in_blocks(model.get_weights()))
    x = _inference_models.make_input(name)
    cache = TuningCache()
    with_all = _tuner(cache)
    engines = {None: Engine(model, num_threads, tuner=with_all)}
    expected = engines[None](x)
    tolerance = 1e-3 * np.abs(expected).max()
    for feature in sorted(with_all.chosen.intersection(features)):
        engines[feature] = Engine(model, num_threads, tuner=_tuner(cache, feature))
        np.testing.assert_allclose(engines[feature](x), expected, atol=tolerance)
    times = {key: [] for key in engines}
    for _ in range(rounds):
        for key, engine in engines.items():
            times[key].append(_fastest_of(lambda engine=engine: engine(x)))
    return {
        feature: {
            "gain": median_ratio(times[feature], times[None]),
            "ms_with": statistics.median(times[None]),
            "ms_without": statistics.median(times[feature]),
        }
        if feature in engines
        else None
        for feature in features
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
