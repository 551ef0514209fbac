"""The report of a check: what a runtime does with the zeros of each weight."""

import dataclasses
import math
from typing import Any

from keras_trim.tables import PrintedTable, Shown

# A weight with fewer zeros than this counts as not pruned.
_PRUNED = 0.3


@dataclasses.dataclass(frozen=True)
class WeightCheck:
    """Whether a runtime skips the zeros of one weight.

    Args:
        path: String. The variable's path.
        layer: String. The name of the layer that owns it.
        kind: String. The layer's class.
        shape: Tuple of integers.
        zeros: Integer. Number of zeros.
        is_sparse: Bool. Whether the runtime skips them.
        rule: String. The broken rule, or `None` if skipping the zeros works and pays off.
        cure: String. What to change, or `None` if there is nothing to do.
        is_stored_sparsely: Bool. Whether the file omits the zeros, or `None` if unknown.
    """

    path: str
    layer: str
    kind: str
    shape: tuple[int, ...]
    zeros: int
    is_sparse: bool
    rule: str | None = None
    cure: str | None = None
    is_stored_sparsely: bool | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def sparsity(self) -> float:
        """Float: zeros over size."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def is_wasted(self) -> bool:
        """Bool: whether the weight is pruned (30 % zeros or more) but breaks a rule."""
        return self.sparsity >= _PRUNED and self.rule is not None


@dataclasses.dataclass(frozen=True)
class Obstacle:
    """A layer, or the whole model, that keeps others from running sparsely.

    Args:
        layer: String. Name of the layer, or `None` (the whole model).
        kind: String. The layer's class, or `None`.
        rule: String. The rule that it breaks.
    """

    layer: str | None
    kind: str | None
    rule: str


@dataclasses.dataclass(frozen=True, repr=False)
class DeploymentReport(Shown):
    """The rows of a check; prints as a table.

    True if some weight runs sparsely, and none with 30 % zeros or more breaks a rule.

    Args:
        target: String. The runtime.
        rows: List of `WeightCheck`, one per kernel or table.
        obstacles: List of `Obstacle`: single layers that prevent all others from running sparsely.
        notes: List of strings. Other conditions, such as which processors.
    """

    target: str
    rows: list[WeightCheck]
    obstacles: list[Obstacle] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def num_sparse(self) -> int:
        """Integer: the number of weights that run sparsely."""
        return sum(row.is_sparse for row in self.rows)

    @property
    def summary(self) -> str:
        """String: a sentence such as `"3 of 5 weights are run sparsely by xnnpack"`."""
        return f"{self.num_sparse} of {len(self.rows)} weights are run sparsely by {self.target}"

    def __bool__(self) -> bool:
        return self.num_sparse > 0 and not any(row.is_wasted for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as values that JSON can hold."""
        rows = [
            {**dataclasses.asdict(row), "shape": list(row.shape), "sparsity": row.sparsity}
            for row in self.rows
        ]
        return {
            "target": self.target,
            "ok": bool(self),
            "summary": self.summary,
            "rows": rows,
            "obstacles": [dataclasses.asdict(obstacle) for obstacle in self.obstacles],
            "notes": list(self.notes),
        }

    def _table(self) -> PrintedTable:
        has_files = any(row.is_stored_sparsely is not None for row in self.rows)
        columns = ["weight", "layer", ">sparsity", "runs", "because", "change"]
        if has_files:
            columns.insert(4, "in the file")
        rows = []
        for row in self.rows:
            cells = [row.path, row.kind, f"{row.sparsity:.2%}", _word(row.is_sparse)]
            if has_files:
                cells.append(_word(row.is_stored_sparsely))
            rows.append([*cells, row.rule or "", row.cure or ""])
        lines = []
        for obstacle in self.obstacles:
            subject = f"'{obstacle.layer}' ({obstacle.kind})" if obstacle.layer else "the model"
            lines.append(f"in the way: {subject}: {obstacle.rule}")
        notes = [f"note: {note}" for note in self.notes]
        return PrintedTable(columns, rows, [*lines, self.summary, *notes])


def _word(is_sparse):
    return "sparse" if is_sparse else "dense"
