"""Chooses a sparsity for each weight that meets a budget at the least expected damage."""

import math
import numbers
from collections.abc import Mapping

import numpy as np

from keras_trim.arguments import described, takes_named
from keras_trim.distributions import Allocation
from keras_trim.one_shot.sensitivity import Sensitivity
from keras_trim.schedules import validate_sparsity


@takes_named
def budget(
    sensitivity: Sensitivity,
    *,
    zeros: float | None = None,
    bytes: float | None = None,
    milliseconds: float | None = None,
    times: Mapping[str, Mapping[float, float]] | None = None,
    higher_is_better: bool | None = None,
) -> Allocation:
    """Finds the sparsities that meet a budget, based on how sensitive each weight is.

    Assumes that damages add up. Makes each weight's damage nondecreasing in its sparsity and
    follows its lower convex hull: the step with the least damage per unit saved comes first, and
    the last step is taken in part. (Greedy is optimal on convex hulls: Fox, "Discrete optimization
    via marginal analysis", Management Science 13(3), 1966.)

    Args:
        sensitivity: `Sensitivity`, as returned by `keras_trim.sensitivity`.
        zeros: Float in `[0, 1)`: the overall sparsity of the weights in `sensitivity`.
        bytes: Number: the size of those weights in a `.ktrim` file, estimated as 4 bytes per
            nonzero weight plus the entropy of the positions.
        milliseconds: Number: the engine's time for the weights in `times`. Other work (activations,
            other layers) is not included.
        times: The result of `keras_trim.inference.weight_times(model)`: a dict: path of a weight ->
            dict of sparsity (including 0) -> milliseconds. Times in between are interpolated;
            weights without times stay dense.
        higher_is_better: Boolean. Whether a higher value of the metric in `sensitivity` is better.
            By default, whichever way pruning changed it on the whole counts as worse, so say it if
            pruning may have improved the metric. Without a metric, it does not matter.

    Returns:
        `Allocation`, for the argument `distribution` of `keras_trim.prune`.

    Raises:
        ValueError: unless exactly one budget is given; if the budget cannot be met.
    """
    if not isinstance(sensitivity, Sensitivity):
        raise ValueError(
            "`sensitivity` must be what `keras_trim.sensitivity(model, x)` returned, or "
            "`keras_trim.Sensitivity.load(path)`. "
            f"Received: sensitivity={described(sensitivity)}"
        )
    name, given = _only_budget(zeros=zeros, bytes=bytes, milliseconds=milliseconds)
    weights = sensitivity.by_weight()
    if name == "milliseconds":
        _check_times(times, weights)
    if higher_is_better is None:
        higher_is_better = _falls(sensitivity)
    sign = -1.0 if sensitivity.metric != "output error" and higher_is_better else 1.0
    sizes = {path: rows[0].size for path, rows in weights.items()}
    total = sum(sizes.values())
    paths = [_Path(path, rows, sign, _cost_of(name, times)) for path, rows in weights.items()]
    excess = _spend(paths, total * (1 - given) if name == "zeros" else given)
    if excess:
        raise ValueError(
            f"The budget cannot be met: at {max(r.sparsity for r in sensitivity.rows):.1%} of "
            f"each weight, the sparsest that was measured, {excess:,.0f} are left. Measure higher "
            f"`sparsities`, or ask for less. Received: {name}={given}"
        )
    sparsities = {path.path: path.sparsity for path in paths}
    overall = sum(sparsities[path] * size for path, size in sizes.items()) / total
    damage = sum(path.damage for path in paths)
    return Allocation(
        sparsities, f"{name} {given:g}: {overall:.2%} zeros, expected change {damage:+.4f}"
    )


def _only_budget(**budgets):
    """The name and the value of the one budget that is given."""
    given = {name: value for name, value in budgets.items() if value is not None}
    if len(given) != 1:
        raise ValueError(
            "Give one of `zeros`, `bytes` and `milliseconds`, such as `zeros=0.9`. "
            f"Received: {given or 'none of them'}"
        )
    ((name, value),) = given.items()
    if name == "zeros":
        validate_sparsity(value, "zeros")
    elif not isinstance(value, numbers.Real) or not value > 0:
        raise ValueError(f"`{name}` must be a positive number. Received: {name}={value!r}")
    return name, value


def _cost_of(budget, times):
    """Function `(path, size, sparsity)`: what a weight costs, in the unit of the budget."""

    def cost(path, size, sparsity):
        if budget == "zeros":
            return size * (1 - sparsity)
        if budget == "bytes":
            return stored_bytes(size, sparsity)
        own = times.get(path)
        return 0.0 if own is None else _interpolate(own, sparsity)

    return cost


def _spend(paths, goal):
    """Goes along the paths until they cost no more than the goal.

    Returns:
        Float: the cost at the end of all paths if that is more than the goal, else 0.
    """
    cost = sum(path.points[0][1] for path in paths)
    exchanges = sorted(
        (exchange for path in paths for exchange in path.exchanges()), key=lambda e: e[0]
    )
    for _, path, index in exchanges:
        if cost <= goal:
            break
        before, after = path.points[index][1], path.points[index + 1][1]
        allowed = before - (cost - goal)
        path.reached = index + (_share(path, index, allowed) if after < allowed else 1.0)
        cost -= before - path.cost
    return cost if cost > goal * (1 + 1e-9) else 0.0


def _share(path, index, goal):
    """How much of a step to take, at least, for a path to cost no more than the goal.

    Between two points, costs are not linear in sparsity: neither bytes nor measured times are.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        path.reached = index + middle
        low, high = (low, middle) if path.cost <= goal else (middle, high)
    return high


def _check_times(times, weights):
    cure = "`times` must be what `keras_trim.inference.weight_times(model)` returns"
    if not isinstance(times, dict) or not times:
        raise ValueError(f"A budget of `milliseconds` needs `times`; {cure}. Received: {times!r}")
    unknown = sorted(set(times) - set(weights))
    if unknown:
        raise ValueError(
            "`times` and `sensitivity` must be of the same model and `pruning_policy`; "
            f"{cure}. Received: "
            f"{', '.join(unknown[:4])}, for weights {', '.join(list(weights)[:4])}"
        )
    incomplete = [path for path, own in times.items() if 0.0 not in map(float, own)]
    if incomplete:
        raise ValueError(
            f"`times` must include sparsity 0, the dense weights; {cure}. Received: none of "
            f"{', '.join(incomplete[:4])}"
        )


class _Path:
    """A weight's position on its hull of points (sparsity, cost, damage), dense first."""

    def __init__(self, path, rows, sign, cost):
        self.path, self.reached, self._sign = path, 0.0, sign
        self._cost, self._size = cost, rows[0].size
        points, worst = [(0.0, cost(path, rows[0].size, 0.0), 0.0)], 0.0
        for row in rows:
            worst = max(worst, sign * row.change)
            points.append((row.sparsity, cost(path, row.size, row.sparsity), worst))
        self.points = _hull(points)

    def exchanges(self):
        """List of tuples, one per step along the hull: damage per cost saved, this path, index."""
        pairs = zip(self.points[:-1], self.points[1:], strict=True)
        return [((b[2] - a[2]) / (a[1] - b[1]), self, index) for index, (a, b) in enumerate(pairs)]

    def _at(self, field):
        index = np.arange(len(self.points))
        return float(np.interp(self.reached, index, [point[field] for point in self.points]))

    @property
    def sparsity(self):
        return self._at(0)

    @property
    def cost(self):
        return self._cost(self.path, self._size, self.sparsity)

    @property
    def damage(self):
        return self._sign * self._at(2)


def _hull(points):
    """The points on the lower convex hull of damage over cost saved."""
    hull = []
    for point in points:
        if hull and point[1] >= hull[-1][1]:  # saves nothing
            continue
        while len(hull) > 1 and _slope(hull[-1], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(a, b):
    return (b[2] - a[2]) / (a[1] - b[1])


def _falls(sensitivity):
    """Whether lower values of the metric are worse: the changes sum to less than 0."""
    return sum(row.change for row in sensitivity.rows) < 0


def _interpolate(table, sparsity):
    keys = sorted(float(key) for key in table)
    values = {float(key): value for key, value in table.items()}
    return float(np.interp(sparsity, keys, [values[key] for key in keys]))


def stored_bytes(size, sparsity):
    """Float: bytes of the nonzero float32 values, plus the entropy of their positions."""
    entropy = 0.0
    if 0 < sparsity < 1:
        entropy = -(sparsity * math.log2(sparsity) + (1 - sparsity) * math.log2(1 - sparsity))
    return size * ((1 - sparsity) * 4 + entropy / 8)
