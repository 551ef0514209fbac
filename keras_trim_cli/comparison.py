"""Compares the weights of two models."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Difference:
    """A weight of model A and its counterpart in model B; one of them may be missing.

    Args:
        a: `summary.Weight` or `None`.
        b: `summary.Weight` or `None`.
        changed: Integer. Elements that differ. This and the fields below are `None` if shapes
            differ or a weight is missing.
        zeroed: Integer. Elements that became zero.
        revived: Integer. Zeros that became nonzero.
        max_change: Float. The largest absolute difference (`nan` if one side is NaN).
        relative_change: Float. Norm of the difference divided by the norm of A.
    """

    a: object
    b: object
    changed: int | None = None
    zeroed: int | None = None
    revived: int | None = None
    max_change: float | None = None
    relative_change: float | None = None

    @property
    def path(self):
        return (self.a or self.b).path

    @property
    def status(self):
        """`"same"`, `"changed"`, `"reshaped"`, `"retyped"`, `"only in A"` or `"only in B"`."""
        if self.b is None:
            return "only in A"
        if self.a is None:
            return "only in B"
        if self.changed is None:
            return "reshaped"
        if self.changed:
            return "changed"
        return "same" if self.a.dtype == self.b.dtype else "retyped"

    def to_dict(self):
        return {
            "path": self.path,
            "status": self.status,
            **{
                side: weight
                and {
                    "path": weight.path,
                    "shape": list(weight.shape),
                    "dtype": weight.dtype,
                    "zeros": weight.zeros,
                    "sparsity": weight.sparsity,
                }
                for side, weight in (("a", self.a), ("b", self.b))
            },
            "changed": self.changed,
            "zeroed": self.zeroed,
            "revived": self.revived,
            "max_change": _finite(self.max_change),
            "relative_change": _finite(self.relative_change),
        }


def _finite(number):
    """The number, or `None` for NaN and infinity, which JSON lacks."""
    return number if number is not None and np.isfinite(number) else None


def match(a, b):
    """Pairs the weights of two models.

    Pairs weights by path. But Keras numbers unnamed layers (`dense_3`), so a model that is built
    twice gets different paths. If paths do not match, and both models have the same shapes in the
    same order, pairs weights by order instead.

    Args:
        a: List of `summary.Weight`.
        b: List of `summary.Weight`.

    Returns:
        List of pairs of `summary.Weight`, either of which may be `None`, and whether they were
        paired by order.
    """
    paths_a, paths_b = [w.path for w in a], [w.path for w in b]
    unique = len(set(paths_a)) == len(a) and len(set(paths_b)) == len(b)
    same_shapes = [w.shape for w in a] == [w.shape for w in b]
    if same_shapes and (not unique or set(paths_a) != set(paths_b)):
        return list(zip(a, b, strict=True)), True
    rest = {}
    for weight in b:
        rest.setdefault(weight.path, []).append(weight)
    pairs = [(w, rest[w.path].pop(0) if rest.get(w.path) else None) for w in a]
    return pairs + [(None, w) for weights in rest.values() for w in weights], False


def compare(a, b):
    """Compares two weights.

    Args:
        a: `summary.Weight` or `None`.
        b: `summary.Weight` or `None`.

    Returns:
        `Difference`.
    """
    if a is None or b is None or a.shape != b.shape:
        return Difference(a, b)
    x, y = a.values, b.values
    if not (np.issubdtype(x.dtype, np.number) and np.issubdtype(y.dtype, np.number)):
        changed = int(np.count_nonzero(x != y))
        return Difference(a, b, changed, 0, 0)
    same = (x == y) | ((x != x) & (y != y))  # two NaNs count as equal
    if same.all():
        return Difference(a, b, 0, 0, 0, 0.0, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.where(same, 0, y.astype("float64") - x)
        norm = float(np.linalg.norm(x.astype("float64")))
        distance = float(np.linalg.norm(change))
    return Difference(
        a,
        b,
        changed=x.size - int(np.count_nonzero(same)),
        zeroed=int(np.count_nonzero((x != 0) & (y == 0))),
        revived=int(np.count_nonzero((x == 0) & (y != 0))),
        max_change=float(np.abs(change).max()),
        relative_change=distance / norm if norm else float("inf"),
    )
