"""Sensitivity analysis: prunes one weight at a time while the others stay dense."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_trim.arguments import check_model, takes_named
from keras_trim.atomic import replace_path
from keras_trim.identity import names
from keras_trim.one_shot.calibration import Calibration
from keras_trim.one_shot.examples import read_examples
from keras_trim.one_shot.jobs import check_method, make_jobs
from keras_trim.one_shot.score import Score
from keras_trim.pattern_arguments import BlockSize, validate_pattern_arguments
from keras_trim.policies import PruningPolicy
from keras_trim.progress import progress
from keras_trim.schedules import validate_sparsity
from keras_trim.tables import PrintedTable, Shown

SPARSITIES = (0.5, 0.75, 0.875, 0.95)


@dataclasses.dataclass(frozen=True)
class SensitivityRow:
    """The effect of pruning one weight to one sparsity while all others stay dense.

    Args:
        path: String. The weight's path, without the name of the model.
        shape: Tuple of integers.
        sparsity: Float. The sparsity of the weight.
        change: Float. The change of the metric; without a metric, the squared error of the model's
            outputs divided by their variance.
    """

    path: str
    shape: tuple[int, ...]
    sparsity: float
    change: float

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """The rows of a sensitivity analysis; prints as a table.

    Args:
        rows: List of `SensitivityRow`.
        metric: String. The quantity in `change`: `"output error"`, or the name of a metric.
        dense: Float. The metric of the dense model (0 for `"output error"`).
        settings: Dict of the settings that the rows depend on.
    """

    rows: list[SensitivityRow]
    metric: str
    dense: float
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def _table(self) -> PrintedTable:
        sparsities = sorted({row.sparsity for row in self.rows})
        rows = []
        for path, own in self.by_weight().items():
            changes = {row.sparsity: f"{row.change:+.4f}" for row in own}
            rows.append([path, f"{own[0].size:,}", *(changes.get(s, "") for s in sparsities)])
        columns = ["weight", ">size", *(f">{sparsity:.1%}" for sparsity in sparsities)]
        what = self.metric if self.metric == "output error" else f"change of {self.metric}"
        return PrintedTable(columns, rows, [f"{what}; of the dense model: {self.dense:.4f}"])

    def by_weight(self) -> dict[str, list[SensitivityRow]]:
        """Dict: path -> its rows, by sparsity."""
        found = {}
        for row in sorted(self.rows, key=lambda row: row.sparsity):
            found.setdefault(row.path, []).append(row)
        paths = dict.fromkeys(row.path for row in self.rows)  # in the order of the model
        return {path: found[path] for path in paths}

    def to_dict(self) -> dict[str, Any]:
        """Dict of JSON types."""
        return dataclasses.asdict(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a JSON file."""
        with replace_path(pathlib.Path(path)) as temporary:
            pathlib.Path(temporary).write_text(json.dumps(self.to_dict(), indent=1))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Sensitivity":
        """Reads a JSON file that `save` wrote.

        Raises:
            ValueError: if the file is not such a file, or is damaged.
        """
        try:
            data = json.loads(pathlib.Path(path).read_text())
            rows = [
                SensitivityRow(**(row | {"shape": tuple(row["shape"])})) for row in data["rows"]
            ]
            return cls(rows, data["metric"], data["dense"], data["settings"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                "The file was not written by `Sensitivity.save`, or is damaged "
                f"({type(error).__name__}: {error}): name another file, or delete it. "
                f"Received: path={path}"
            ) from error


@takes_named
def sensitivity(
    model: keras.Model,
    x: Any,
    y: Any = None,
    metric: Callable[[Any, Any], float] | None = None,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    method: str = "reconstruct",
    block_size: BlockSize = (1, 1),
    pruning_policy: PruningPolicy | None = None,
    batch_size: int = 32,
    path: str | os.PathLike[str] | None = None,
    verbose: str | bool = "auto",
) -> Sensitivity:
    """Measures how sensitive a trained model is to pruning each of its prunable weights.

    Prunes each weight in one shot on `x` to several sparsities, keeps all other weights dense, and
    runs the model on `x`. The model does not change.

    Args:
        model: A built `keras.Model`.
        x: Array, or nested arrays: a few hundred examples.
        y: Array of labels, or `None` to measure the error of the model's outputs.
        metric: With `y`: a function of labels and outputs, both NumPy arrays, that returns a
            number, such as `lambda y, p: (p.argmax(-1) == y).mean()`; or a `keras.metrics.Metric`.
        sparsities: Floats in `[0, 1)`.
        method: As in `keras_trim.prune`, like `block_size`, `pruning_policy`, `batch_size` and
            `verbose`.
        path: Path of a JSON file for intermediate results. Rows already in it are not measured
            again, and those that are not asked for stay in it.

    Returns:
        `Sensitivity`. `print` it for a table; `.rows` is the data.

    Raises:
        ValueError: if only one of `y` and `metric` is given; if `path` holds results of other
            settings, weights or examples; if the outputs do not differ among examples; and as for
            `keras_trim.prune`.
    """
    check_model(model)
    if (y is None) != (metric is None) or (metric is not None and not callable(metric)):
        raise ValueError(
            "Give both `y` and `metric`, a function of labels and outputs; or neither, to measure "
            f"the error of the outputs. Received: y={type(y).__name__}, metric={metric!r}"
        )
    sparsities = _checked_sparsities(sparsities)
    method = check_method(method, x)
    block_size, _ = validate_pattern_arguments(block_size, "AVG", None)
    data = read_examples(model, x, batch_size, "x")
    pattern = block_size, "AVG", pruning_policy, None
    make_jobs(model, sparsities[0], pattern, "uniform")  # tells what stays dense
    score = Score(model, data, y, metric)
    return measure(model, data, score, sparsities, method, pattern, path, verbose)


def measure(model, data, score, sparsities, method, pattern, path=None, verbose="auto"):
    """Measures with arguments that are checked already.

    Args:
        model: Keras model.
        data: List of batches.
        score: `Score`.
        sparsities: Tuple of floats.
        method: One of `METHODS`.
        pattern: Tuple: block size, pooling, policy and N:M pattern, as `make_jobs` takes it.
        path: As in `sensitivity`.
        verbose: As in `sensitivity`.

    Returns:
        `Sensitivity`.
    """
    settings = {
        "method": method,
        "block_size": list(pattern[0]),
        "examples": sum(map(_num_examples, data)),
        "digest": _digest(model, data, score),
    }
    known = _read(path, score.name, score.dense, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller has told what stays dense
        jobs = {s: make_jobs(model, s, pattern, "uniform") for s in sparsities}
    rows, calibration = [], Calibration(model, data, method)
    prefix = f"{model.name}/"  # removed, because Keras numbers models: `model_1`, `model_2`
    with progress("measuring weights", len(next(iter(jobs.values()))), verbose) as work:
        own_names = names([job.variable for job in next(iter(jobs.values()))], prefix)
        for weight, own in zip(own_names, zip(*jobs.values(), strict=True), strict=True):
            found = _rows_of_weight(weight, calibration, own, known, score)
            rows += found
            if path is not None and any((r.path, r.sparsity) not in known for r in found):
                saved = {(row.path, row.sparsity): row for row in rows}
                saved |= {key: row for key, row in known.items() if key not in saved}
                Sensitivity(list(saved.values()), score.name, score.dense, settings).save(path)
            work.advance()
    return Sensitivity(rows, score.name, score.dense, settings)


def _num_examples(batch):
    return len(next(part for part in keras.tree.flatten(batch) if part is not None))


def _digest(model, data, score):
    """String that differs for other weights, examples, labels or metrics."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(ops.convert_to_numpy(variable.value).tobytes())
    for parts in zip(*map(keras.tree.flatten, data), strict=True):
        for part in parts:
            if part is not None:
                digest.update(np.asarray(part).tobytes())
    for part in score.identity():
        digest.update(part)
    return digest.hexdigest()[:16]


def _checked_sparsities(sparsities):
    sparsities = tuple(sparsities) if isinstance(sparsities, Iterable) else ()
    if not sparsities:
        raise ValueError(
            f"`sparsities` must be some numbers, such as {SPARSITIES}. "
            f"Received: sparsities={sparsities!r}"
        )
    for sparsity in sparsities:
        validate_sparsity(sparsity, "sparsities")
    return sparsities


def _read(path, metric, dense, settings):
    """Dict: (path, sparsity) -> row, from a file."""
    if path is None or not pathlib.Path(path).exists():
        return {}
    read = Sensitivity.load(path)
    of_file = {"digest": settings["digest"], **read.settings}  # older files have no digest
    is_close = math.isclose(read.dense, dense, rel_tol=1e-3, abs_tol=1e-6)
    if (read.metric, of_file) != (metric, settings) or not is_close:
        raise ValueError(
            "`path` holds results of other settings, or of another model, other examples or "
            "labels: name another file, or delete it. Received: "
            f"{path} of {read.metric}, {read.dense:g} when dense, {read.settings}; asked for "
            f"{metric}, {dense:g} when dense, {settings}"
        )
    return {(row.path, row.sparsity): row for row in read.rows}


def _rows_of_weight(name, calibration, jobs, known, score):
    """The rows of one weight, called `name`; measures its inputs once for all sparsities."""
    rows, moments = [], None
    for job in jobs:
        key = name, job.sparsity
        if key in known:
            rows.append(known[key])
            continue
        calibration.values.clear()
        if calibration.why_not(job) is not None or not calibration.is_reached(job.variable):
            calibration.prune_by_magnitude(job)
        else:
            moments = moments or calibration.moments(job)
            calibration.prune(job, moments)
        change = score(calibration.values.values()) - score.dense
        rows.append(SensitivityRow(name, tuple(job.variable.shape), job.sparsity, change))
    calibration.values.clear()
    return rows
