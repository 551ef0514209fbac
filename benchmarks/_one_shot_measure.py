"""Measures models that are pruned in one shot, with and without re-estimated statistics."""

import time

from benchmarks._common import RESULTS

NUM_EXAMPLES = 512
SENSITIVITY = (0.5, 0.75, 0.875, 0.95)
BUILD = RESULTS.parent.parent / "build"


def pattern(target):
    """Returns arguments of `keras_trim.prune` for a sparsity, "2:4", or (sparsity, block size)."""
    if target == "2:4":
        return {"sparsity": None, "sparsity_m_by_n": (2, 4)}
    if isinstance(target, tuple):
        return {"sparsity": target[0], "block_size": target[1]}
    return {"sparsity": target}


def _of_block(block_size):
    """Returns a policy that leaves kernels dense that are smaller than a block."""
    import keras_trim

    class Policy(keras_trim.PruningPolicy):
        def allow_pruning(self, layer):
            kernel = getattr(layer, "kernel", None)
            return kernel is None or all(
                n >= size for n, size in zip(kernel.shape[-2:], block_size, strict=True)
            )

        def ensure_model_supports_pruning(self, model):
            pass

    return Policy()


class Clock:
    """Seconds since its creation: wall time, and CPU time of all cores (unaffected by load)."""

    def __init__(self):
        self._start = time.perf_counter(), time.process_time()

    def read(self):
        wall, cpu = self._start
        return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


# What the name of a method is followed by in the results -> argument `update_statistics`.
STATISTICS = {"": False, " + relative": "relative", " + statistics": True}


def measure_pruned(cells, key, model, weights, x, measure, *, target, method, **arguments):
    """Measures a model pruned in one shot, once for each way to treat its statistics.

    Args:
        cells: `Cells`; results go under `(*key, method + one of STATISTICS)`.
        key: Tuple of strings.
        model: Keras model, left pruned.
        weights: The result of `model.get_weights()` for the dense model.
        x: Calibration examples.
        measure: Function without arguments that returns a dict of results for the model.
        target, method: Argument of `pattern`; name of the method.
        **arguments: More arguments of `keras_trim.prune`.
    """
    import keras_trim  # after the backend is chosen

    if isinstance(target, tuple):
        arguments["pruning_policy"] = _of_block(target[1])
    arguments |= {"method": method, "calibration_data": x, "batch_size": 128}

    def prune(update_statistics):
        model.set_weights(weights)
        clock = Clock()
        keras_trim.prune(model, **pattern(target), update_statistics=update_statistics, **arguments)
        return clock.read() | measure()

    for name, update_statistics in STATISTICS.items():
        if update_statistics is False or _has_statistics(model):
            cells.measure(*key, method + name, by=lambda own=update_statistics: prune(own))


def _has_statistics(model):
    return any("moving" in weight.path for weight in model.weights)


def measure_ways(cells, key, model, weights, examples, measure, *, zeros, draws):
    """Compares ways to spread the same number of zeros over a model's weights.

    `"first dense"` does not prune the first layer. `"budget"` follows the output error.

    Args:
        cells: `Cells`; results go under `(*key, name of the way, draw, ...)`.
        key: Tuple of strings.
        model: Keras model, left pruned.
        weights: The result of `model.get_weights()` for the dense model.
        examples: Function: draw, an integer -> calibration examples.
        measure: Function without arguments that returns a dict of results for the model.
        zeros: Float. The fraction of zeros in all weights together.
        draws: Integer. Number of draws of examples.
    """
    import keras_trim  # after the backend is chosen

    model.set_weights(weights)
    table = sensitivities(model, examples(0))
    sizes = {name: rows[0].size for name, rows in table.by_weight().items()}
    total, first = sum(sizes.values()), next(iter(sizes))
    others = zeros * total / (total - sizes[first])
    ways = {
        "uniform": "uniform",
        "first dense": {f"(?<!{first.split('/')[0]}/)kernel$": others},
        "erk": "erk",
        "global": "global",
        "budget": keras_trim.budget(table, zeros=zeros),
    }
    for name, way in ways.items():
        for draw in range(draws):
            measure_pruned(
                cells,
                (*key, name, f"draw {draw}"),
                model,
                weights,
                examples(draw),
                measure,
                target=zeros if isinstance(way, str) else None,
                method="reconstruct",
                distribution=way,
            )


def sensitivities(model, x):
    """Returns the sensitivities of a model's weights, from a file if they are known."""
    import keras_trim  # after the backend is chosen

    path = BUILD / f"one_shot_sensitivity_{model.name}.json"
    path.parent.mkdir(exist_ok=True)
    return keras_trim.sensitivity(model, x, sparsities=SENSITIVITY, batch_size=128, path=path)


def estimate_statistics(model, x):
    """Re-estimates batch normalization's statistics."""
    import keras_trim

    keras_trim.prune(
        model, 0.0, calibration_data=x, method="magnitude", batch_size=128, update_statistics=True
    )
