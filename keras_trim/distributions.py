"""Distributes a total number of zeros over weights, as one sparsity per weight.

It makes no difference here whether weights are pruned at once or during training.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_trim.arguments import described
from keras_trim.identity import names
from keras_trim.schedules import validate_sparsity
from keras_trim.tables import PrintedTable, Shown

NAMES = ("uniform", "erk", "global")


@dataclasses.dataclass(frozen=True, repr=False)
class Allocation(Shown):
    """A sparsity per weight, keyed by path: the result of `keras_trim.budget`.

    Args:
        sparsities: Dict: path of a weight, with or without its first part, -> float in `[0, 1)`.
            All other weights stay dense.
        summary: String. What was asked for and what to expect.
    """

    sparsities: dict[str, float]
    summary: str = ""

    def _table(self) -> PrintedTable:
        rows = [[path, f"{sparsity:.2%}"] for path, sparsity in self.sparsities.items()]
        return PrintedTable(["weight", ">sparsity"], rows, [self.summary] if self.summary else [])


def distribute(
    distribution: str | Mapping[str, float] | Allocation,
    sparsity: float | None,
    variables: list[Any],
    prefix: str = "",
) -> list[float | None]:
    """Returns the sparsity of each weight.

    Args:
        distribution: `"uniform"`: the same for all. `"erk"`: large weights are sparser, by the
            ratio of the sum of their sizes to the product (Erdos-Renyi kernel; Evci et al.,
            https://arxiv.org/abs/1911.11134, section 3). `"global"`: one magnitude threshold for
            all weights. A dict of regular expressions to sparsities: each is searched for in a
            weight's path and the first match counts, as in `keras.distribution.LayoutMap`; a weight
            without a match stays dense. Or an `Allocation`.
        sparsity: Float in `[0, 1)`: the fraction of zeros in all weights together. `None` with a
            dict or an `Allocation`.
        variables: List of the Keras variables that can be pruned.
        prefix: String, the first part of their paths that an `Allocation` lacks.

    Returns:
        List of floats, with `None` for weights that stay dense.

    Raises:
        ValueError: if the distribution is unknown or empty, a sparsity is outside `[0, 1)`, or an
            expression matches nothing.
    """
    if isinstance(distribution, (Mapping, Allocation)):
        if sparsity is not None:
            raise ValueError(
                "Sparsities are given by `distribution`, weight by weight: leave `sparsity` out "
                f"(`None`). Received: sparsity={sparsity}, distribution={described(distribution)}"
            )
        if isinstance(distribution, Allocation):
            return _by_path(distribution.sparsities, variables, prefix)
        return _by_expression(distribution, variables)
    if not isinstance(distribution, str) or distribution not in NAMES:
        raise ValueError(
            "`distribution` must be 'uniform', 'erk', 'global', 'sensitivity', a dict of regular "
            "expressions to sparsities, or what `keras_trim.budget` returns. "
            f"Received: distribution={described(distribution)}"
        )
    validate_sparsity(sparsity, "sparsity")
    return {"uniform": _uniform, "erk": _erk, "global": _global}[distribution](sparsity, variables)


def _uniform(sparsity, variables):
    return [float(sparsity)] * len(variables)


def _erk(sparsity, variables):
    shapes = [tuple(variable.shape) for variable in variables]
    sizes = np.array([math.prod(shape) for shape in shapes], "float64")
    raw = np.array([sum(shape) for shape in shapes]) / sizes
    dense = np.zeros(len(shapes), bool)
    while True:  # a weight whose density would exceed 1 stays dense; the others compensate
        left = (1 - sparsity) * sizes.sum() - sizes[dense].sum()
        scale = left / (raw * sizes)[~dense].sum() if not dense.all() else 0.0
        above = ~dense & (raw * scale > 1)
        if not above.any():
            break
        dense |= above
    density = np.where(dense, 1.0, raw * scale)
    return [float(x) for x in np.clip(1 - density, 0.0, None)]


def _global(sparsity, variables):
    magnitudes = [
        np.abs(ops.convert_to_numpy(ops.cast(variable.value, "float32"))).ravel()
        for variable in variables
    ]
    total = sum(values.size for values in magnitudes)
    count = round(total * sparsity)
    if not count:
        return [0.0] * len(variables)
    threshold = np.partition(np.concatenate(magnitudes), count - 1)[count - 1]
    below = [np.count_nonzero(values < threshold) for values in magnitudes]
    ties = count - sum(below)  # of equal magnitudes, prune those of the first weights
    counts = []
    for values, fewer in zip(magnitudes, below, strict=True):
        taken = min(ties, np.count_nonzero(values == threshold))
        ties -= taken
        counts.append(min(fewer + taken, values.size - 1))  # one weight is always kept
    return [n / values.size for n, values in zip(counts, magnitudes, strict=True)]


def _by_expression(expressions, variables):
    if not expressions:
        raise ValueError(
            "`distribution` must have at least one expression, such as {'kernel': 0.8}: without "
            "any, nothing is pruned. Received: distribution={}"
        )
    for expression, value in expressions.items():
        validate_sparsity(value, f"distribution[{expression!r}]")
        try:
            re.compile(expression)
        except (re.error, TypeError) as error:
            raise ValueError(
                "`distribution` must be a dict of regular expressions to sparsities. Received: "
                f"{expression!r}, which is none: {error}"
            ) from error
    sparsities, unused = [], set(expressions)
    for variable in variables:
        matches = [key for key in expressions if re.search(key, variable.path)]
        unused -= set(matches)
        sparsities.append(float(expressions[matches[0]]) if matches else None)
    if unused:
        raise ValueError(
            "Each expression in `distribution` must match the path of a weight that can be pruned. "
            f"Paths: {', '.join(v.path for v in variables[:4])}{', ...' * (len(variables) > 4)}. "
            f"Received: without a match, {', '.join(repr(key) for key in sorted(unused))}"
        )
    return sparsities


def _by_path(sparsities, variables, prefix):
    as_measured = names(variables, prefix)
    if set(sparsities) <= set(as_measured):
        return [sparsities.get(name) for name in as_measured]
    # With and without the model's name, which Keras numbers.
    named = [(name, name.partition("/")[2]) for name in names(variables)]
    unknown = set(sparsities) - {name for both in named for name in both}
    if unknown:
        raise ValueError(
            "The `distribution` belongs to another model: it has sparsities for weights that this "
            f"model lacks. Received: {', '.join(sorted(unknown)[:4])}"
        )
    return [sparsities.get(path, sparsities.get(short)) for path, short in named]
