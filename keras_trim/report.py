"""Reports which weights are zero, counted from the weights themselves."""

import dataclasses
import math
import warnings
from collections import Counter

import keras

from keras_trim.annotations import get_annotation, is_built, marked_variables, resolve_pending
from keras_trim.arguments import check_model, counted
from keras_trim.counting import count_zeros
from keras_trim.policies import Candidate, candidates
from keras_trim.tables import PrintedTable, Shown, without_empty


@dataclasses.dataclass(frozen=True)
class ReportRow:
    """One weight of a model.

    Args:
        path: String. The variable's path.
        layer: String. The name of the layer that owns it.
        shape: Tuple of integers.
        pattern: String (`"element"`, `"block 4x4 AVG"`, `"2:4"`), or `None` if it is not marked.
        target: Float. The final sparsity to reach, as zeros over size, or `None`.
        zeros: Integer. The counted zeros.
        reason: String. Why the weight is not pruned, or `None` if it is. In a model without marks:
            why it cannot be pruned, or `None` if it can.
        kind: String. The class of the layer.
        is_by_design: Bool. Whether no model prunes this weight, for example because it is a bias.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    pattern: str | None
    target: float | None
    zeros: int
    reason: str | None
    kind: str = ""
    is_by_design: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def sparsity(self) -> float:
        """Float: zeros over size."""
        return self.zeros / self.size if self.size else 0.0


@dataclasses.dataclass(frozen=True, repr=False)
class SparsityReport(Shown):
    """The rows of a report. It prints as a table, also in a notebook.

    The table has a line for each weight that is pruned or could be. Weights that are never pruned
    by design, such as biases, share one line; `rows` has all of them.

    Args:
        rows: List of `ReportRow`, one per weight, in the order of the layers.
        is_marked: Bool. Whether weights of the model are marked for pruning. They are not after
            `strip_pruning`, after `prune`, and in a file that was loaded.
    """

    rows: list[ReportRow]
    is_marked: bool = True

    @property
    def pruned_rows(self) -> list[ReportRow]:
        """List of the rows of pruned weights. Without marks: of weights that can be pruned."""
        return [row for row in self.rows if row.reason is None]

    @property
    def sparsity(self) -> float:
        """Float: zeros over size of the pruned rows (0.0 if there are none)."""
        size = sum(row.size for row in self.pruned_rows)
        return sum(row.zeros for row in self.pruned_rows) / size if size else 0.0

    @property
    def model_sparsity(self) -> float:
        """Float: zeros over size of all weights."""
        size = sum(row.size for row in self.rows)
        return sum(row.zeros for row in self.rows) / size if size else 0.0

    def _table(self) -> PrintedTable:
        shown = [row for row in self.rows if not row.is_by_design]
        folded = [row for row in self.rows if row.is_by_design]
        columns = ["weight", "shape", "pattern", ">target", ">zeros", ">sparsity"]
        columns.append("not pruned because")
        rows = []
        for row in shown:
            target = "" if row.target is None else f"{row.target:.2%}"
            cells = [row.path, _shape(row), row.pattern or "", target, f"{row.zeros:,}"]
            rows.append([*cells, f"{row.sparsity:.2%}", row.reason or ""])
        lines = [f"not pruned, by design: {_named(folded)}"] if folded else []
        size = sum(row.size for row in self.pruned_rows)
        kind = "pruned" if self.is_marked else "prunable"
        pruned = f"{kind} weights: {size:,}, of which {self.sparsity:.2%} are zero; "
        total = sum(row.size for row in self.rows)
        lines.append(
            f"{pruned if size else ''}all weights: {total:,}, {self.model_sparsity:.2%} zero"
        )
        others = [[r.path, _shape(r), f"{r.zeros:,}", r.reason or ""] for r in folded]
        title = counted(len(folded), "{weights that are|weight that is} not pruned")
        unfolded = title, ["weight", "shape", ">zeros", ""]
        columns, rows = without_empty(columns, rows)
        return PrintedTable(columns, rows, lines, [(*unfolded, others)] if folded else [])


def _shape(row: ReportRow) -> str:
    return "x".join(map(str, row.shape)) or "scalar"


def _named(rows: list[ReportRow]) -> str:
    """Counts what is left out by kind: `"26 BatchNormalization layers, 13 depthwise kernels"`."""
    counts: Counter[str] = Counter()
    layers: dict[str, set[str]] = {}
    for row in rows:
        parent, _, name = row.path.rpartition("/")
        if "Normalization" in row.kind:
            layers.setdefault(row.kind, set()).add(parent)
        elif name == "bias":
            counts["bias"] += 1
        elif row.reason and row.reason.startswith("depthwise"):
            counts["depthwise kernel"] += 1
        else:
            counts[f"weight of {row.kind}"] += 1
    plurals = {"bias": "biases"}
    named = [f"{len(own)} {kind} layer{'s' * (len(own) > 1)}" for kind, own in layers.items()]
    for name, count in counts.items():
        first, *rest = name.split(" of ")
        many = plurals.get(first, f"{first}s")
        named.append(" of ".join([f"{count} {first if count == 1 else many}", *rest]))
    return ", ".join(named)


def sparsity_report(model: keras.layers.Layer) -> SparsityReport:
    """Reports whether and how each weight of a model is pruned, and how many values are zero.

    It counts all zeros: during training, after `strip_pruning` or `prune`, and in a loaded model.

    Args:
        model: Built Keras model or layer. If processes share its weights, all of them must call
            this.

    Returns:
        `SparsityReport`. `print` it for a table; `.rows` has the data.

    Raises:
        ValueError: if the model is not built.
    """
    check_model(model, takes_layers=True)
    if not model.variables and not is_built(model):
        raise ValueError(
            "The model has no weights yet: build it first, by `model.build(input_shape)` or by "
            f"calling it on a batch. Received: model={model.name}"
        )
    resolve_pending()
    weights = list(candidates(model))
    zeros = count_zeros([candidate.variable for candidate in weights])
    is_marked = any(get_annotation(candidate.variable) is not None for candidate in weights)
    rows = [_row(*pair, is_marked) for pair in zip(weights, zeros, strict=True)]
    return SparsityReport(rows, is_marked)


def _row(candidate: Candidate, zeros: int, is_model_marked: bool) -> ReportRow:
    variable, mark = candidate.variable, get_annotation(candidate.variable)
    spec = mark.spec if mark else None
    reason = candidate.reason
    if mark is not None:
        reason = mark.reason
    elif reason is None and is_model_marked:
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
        kind=type(candidate.layer).__name__,
        is_by_design=candidate.reason is not None and not candidate.is_in_doubt,
    )


def warn_of_missed_targets(model, moment):
    """Warns if marked weights have fewer zeros than the end of their schedules asks for.

    Args:
        model: Keras model or layer.
        moment: String that begins the warning, such as "Training ended".

    Returns:
        Boolean. Whether it has warned.
    """
    targets = [
        (v, get_annotation(v).spec.target_zeros) for v in marked_variables(model) if v.trainable
    ]
    targets = [(variable, target) for variable, target in targets if target is not None]
    counts = count_zeros([variable for variable, _ in targets])
    missed = []
    for (variable, target), zeros in zip(targets, counts, strict=True):
        size = math.prod(variable.shape)
        if zeros < target:
            missed.append(f"{variable.path} at {zeros / size:.2%} of {target / size:.2%}")
    if missed:
        warnings.warn(
            f"{moment} before "
            + counted(len(missed), "{weights|weight} reached {their|its} target sparsity: ")
            + f"{'; '.join(missed[:4])}{' ...' if len(missed) > 4 else ''}. Train on until the "
            "schedule's `end_step`, or begin or end the schedule earlier.",
            stacklevel=3,
        )
    return bool(missed)
