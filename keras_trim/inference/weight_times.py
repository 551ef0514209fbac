"""Measures the engine's time per weight at several sparsities."""

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_trim.identity import names
from keras_trim.inference.engine import Engine

if TYPE_CHECKING:
    import keras

    from keras_trim.policies import PruningPolicy

SPARSITIES = (0.0, 0.5, 0.75, 0.875, 0.95)


def weight_times(
    model: "keras.Model",
    x: Any = None,
    sparsities: Sequence[float] = SPARSITIES,
    *,
    pruning_policy: "PruningPolicy | None" = None,
) -> dict[str, dict[float, float]]:
    """Measures the engine's time for each prunable weight, for a budget in milliseconds.

    Prunes all weights by magnitude to each sparsity in turn, times the engine's operations, and
    restores the model. A layer with several weights splits its time among them by size.

    Args:
        model: A built Keras model.
        x: Arrays to measure with; by default one random example.
        sparsities: Floats in `[0, 1)`; must include 0.
        pruning_policy: As in `keras_trim.prune`.

    Returns:
        Dict: path of a weight, without the model's name -> dict of sparsity -> milliseconds. This
        is the argument `times` of `keras_trim.budget`. Leaves out weights of layers that run in
        Keras.

    Raises:
        ValueError: if 0 is not among the sparsities, or nothing in the model can be pruned.
    """
    from keras_trim.one_shot.jobs import make_jobs
    from keras_trim.one_shot.prune import run

    sparsities = sorted({float(sparsity) for sparsity in sparsities})
    if not sparsities or sparsities[0] != 0:
        raise ValueError(
            "`sparsities` must have 0, the dense weights, among them. "
            f"Received: sparsities={sparsities}"
        )
    times = {}
    for sparsity in sparsities:
        jobs = make_jobs(model, sparsity, ((1, 1), "AVG", pruning_policy, None), "uniform")
        with _restored([job.variable for job in jobs]):
            run(model, jobs, "magnitude", [], False).assign()
            seconds = _seconds_of_layers(model, x)
        variables = [job.variable for job in jobs]
        named = list(zip(names(variables, f"{model.name}/"), variables, strict=True))
        for layer, own in seconds:
            weights = {id(variable) for variable in layer.weights}
            sizes = {
                name: math.prod(variable.shape)
                for name, variable in named
                if id(variable) in weights
            }
            for path, size in sizes.items():
                share = size / sum(sizes.values())
                times.setdefault(path, {})[sparsity] = 1e3 * share * own
    return times


def _seconds_of_layers(model, x):
    """List of pairs: a layer, and the seconds its operations take."""
    owners, seconds = {}, {}
    summary = Engine._of(model, owners).summary(x)
    for row in summary.rows:
        if row.layer in owners and row.kernel != "Keras":
            layer = owners[row.layer]
            _, before = seconds.get(id(layer), (layer, 0.0))
            seconds[id(layer)] = layer, before + row.seconds
    return list(seconds.values())


@contextlib.contextmanager
def _restored(variables):
    """Restores the values of variables on exit."""
    from keras import ops  # imported here because engines load without Keras

    before = [ops.convert_to_numpy(variable.value).copy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
