"""Reports which weights are zero, counted from the weights themselves."""

import dataclasses
import io
import math
import warnings

import keras
from rich import box
from rich.console import Console
from rich.table import Table

from keras_trim.counting import count_zeros
from keras_trim.marks import get_mark, marked_variables, resolve_pending
from keras_trim.policies import candidates


@dataclasses.dataclass(frozen=True)
class ReportRow:
    """One weight of a model.

    Args:
        path: String. The variable's path.
        layer: String. The name of the layer that owns it.
        shape: Tuple of integers.
        pattern: String (`"element"`, `"block 4x4 AVG"`, `"2:4"`), or `None` if it is not pruned.
        target: Float. The final sparsity to reach, as zeros over size, or `None`.
        zeros: Integer. The counted zeros.
        reason: String. Why the weight is not pruned, or `None` if it is.
    """

    path: str
    layer: str
    shape: tuple
    pattern: str | None
    target: float | None
    zeros: int
    reason: str | None

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def sparsity(self):
        """Float: zeros over size."""
        return self.zeros / self.size if self.size else 0.0


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """The rows of a report. It prints as a table.

    Args:
        rows: List of `ReportRow`, one per weight.
    """

    rows: list

    @property
    def pruned_rows(self):
        return [row for row in self.rows if row.reason is None]

    @property
    def sparsity(self):
        """Float: zeros over size of the pruned weights (0.0 if there are none)."""
        size = sum(row.size for row in self.pruned_rows)
        return sum(row.zeros for row in self.pruned_rows) / size if size else 0.0

    @property
    def model_sparsity(self):
        """Float: zeros over size of all weights."""
        size = sum(row.size for row in self.rows)
        return sum(row.zeros for row in self.rows) / size if size else 0.0

    def __str__(self):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("weight", no_wrap=True, overflow="fold")
        table.add_column("shape")
        table.add_column("pattern")
        for heading in ("target", "zeros", "sparsity"):
            table.add_column(heading, justify="right")
        table.add_column("not pruned because", overflow="fold")
        for row in self.rows:
            table.add_row(
                row.path,
                "x".join(str(size) for size in row.shape) or "scalar",
                row.pattern or "",
                "" if row.target is None else f"{row.target:.2%}",
                f"{row.zeros:,}",
                f"{row.sparsity:.2%}",
                row.reason or "",
            )
        sizes = [sum(row.size for row in rows) for rows in (self.pruned_rows, self.rows)]
        buffer = io.StringIO()
        console = Console(file=buffer, width=140, color_system=None)
        console.print(table)
        pruned = f"pruned weights: {sizes[0]:,}, of which {self.sparsity:.2%} are zero; "
        console.print(
            f"{pruned if sizes[0] else ''}all weights: {sizes[1]:,}, {self.model_sparsity:.2%} zero"
        )
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def sparsity_report(model):
    """Reports whether and how each weight of a model is pruned, and how many values are zero.

    Args:
        model: Built Keras model or layer. If processes share its weights, all of them must call
            this.

    Returns:
        `SparsityReport`. `print` it for a table; `.rows` has the data.

    Raises:
        ValueError: if the model is not built.
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(f"`model` must be a Keras model or layer. Received: model={model!r}")
    if not model.variables:
        raise ValueError(
            "The model has no weights yet: build it first, by `model.build(input_shape)` or by "
            f"calling it on a batch. Received: model={model.name}"
        )
    resolve_pending()
    weights = list(candidates(model))
    zeros = count_zeros([candidate.variable for candidate in weights])
    return SparsityReport([_row(*pair) for pair in zip(weights, zeros, strict=True)])


def _row(candidate, zeros):
    variable, mark = candidate.variable, get_mark(candidate.variable)
    spec = mark.spec if mark else None
    reason = candidate.reason
    if mark is not None:
        reason = mark.reason
    elif reason is None:
        reason = "not marked by prune_low_magnitude"
    if spec is not None and not variable.trainable:
        reason = "frozen (trainable=False)"
    size = math.prod(variable.shape)
    has_target = spec is not None and spec.target_zeros is not None and size
    return ReportRow(
        path=variable.path,
        layer=candidate.layer.name,
        shape=tuple(variable.shape),
        pattern=spec.pattern.name if spec else None,
        target=spec.target_zeros / size if has_target else None,
        zeros=zeros,
        reason=reason,
    )


def warn_of_missed_targets(model, moment):
    """Warns if marked weights have fewer zeros than the end of their schedules asks for.

    Args:
        model: Keras model or layer.
        moment: String that begins the warning, such as "Training ended".

    Returns:
        Boolean. Whether it has warned.
    """
    targets = [(v, get_mark(v).spec.target_zeros) for v in marked_variables(model) if v.trainable]
    targets = [(variable, target) for variable, target in targets if target is not None]
    counts = count_zeros([variable for variable, _ in targets])
    missed = []
    for (variable, target), zeros in zip(targets, counts, strict=True):
        size = math.prod(variable.shape)
        if zeros < target:
            missed.append(f"{variable.path} at {zeros / size:.2%} of {target / size:.2%}")
    if missed:
        warnings.warn(
            f"{moment} before {len(missed)} weights reached their target sparsity: "
            f"{'; '.join(missed[:4])}{' ...' if len(missed) > 4 else ''}. Train on until the "
            "schedule's `end_step`, or begin or end the schedule earlier.",
            stacklevel=3,
        )
    return bool(missed)
