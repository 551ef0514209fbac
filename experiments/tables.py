"""Writes docs/results.md, its plots and the small table in the README from experiments/results.

    python -m experiments.tables [--check]

`--check` writes nothing, and fails if the pages are out of date.
"""

import argparse
import collections
import json
import math
import pathlib
import re
import statistics
import sys

from experiments.goals import GOALS

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs"
PAGE = DOCS / "results.md"
README = HERE.parent / "README.md"
_BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
_INTRODUCTION = """# Results: what pruning costs and saves

<!-- Written by `python -m experiments.tables` from experiments/results; do not edit. -->

Each seed of a model starts from a dense checkpoint, which was trained here or published. All rows
of the table continue training from that checkpoint for the same number of steps: one stays dense,
the others are pruned to one sparsity each. They share the optimizer, the learning rate and the
pruning schedule. Two settings are chosen by the validation score at 80 % sparsity, for the first
seed: the learning rate, and then whether the first layer stays dense. (InceptionV3 takes the
learning rate of the MobileNets, and makes the other choice at 75 %.) We export each model, load the
file, and report the test score of the loaded model.

- **Scores** are top-1 accuracy in percent, or BLEU: the mean over all seeds ± its standard error.
- **Sparsity** is the target for the weights that are pruned. The next column shows the zeros among
  all weights of the model.
- **Drop** is the dense score minus the sparse score of the same seed, in points.
- **Goal:** a row meets its goal if its drop is no larger than the allowed drop, within one standard
  error. Where [TFMOT's guide](https://www.tensorflow.org/model_optimization/guide/pruning) reports
  the row, the allowed drop is the guide's; elsewhere it is ours, where we set one. The guide's
  data sets are larger than ours, so compare drops, not scores.
- **Times** are median milliseconds at batch size 1 on one thread. The runtimes take turns on one
  machine. The engine skips the zeros; LiteRT and ONNX Runtime run the same model and compute with
  them.

To run a row on your own data, see [experiments/README.md](../experiments/README.md).
"""


class Results:
    """The recorded runs of one model.

    Args:
        name: String. A key of `GOALS`.
        folder: `pathlib.Path` of the results.
    """

    def __init__(self, name, folder=RESULTS):
        self.name, self.goal = name, GOALS[name]
        path = folder / f"{name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        self.lines = [json.loads(line) for line in lines]
        own = [line for line in self.lines if line.get("library") == "keras-trim"]
        counts = collections.Counter(line["backend"] for line in own)
        # The table shows the backend with the most runs; a note below it lists the others.
        self.backend = counts.most_common(1)[0][0] if counts else None

    def rows(self, target, library="keras-trim"):
        """Returns a dict: seed -> run."""
        backend = self.backend if library == "keras-trim" else "tensorflow"
        wanted = {"kind": "row", "target": target, "library": library, "backend": backend}
        return {
            line["seed"]: line
            for line in self.lines
            if all(line.get(key) == value for key, value in wanted.items())
        }

    def on_other_backends(self):
        """Returns a list of the keras-trim runs that the table does not show."""
        own = [line for line in self.lines if line.get("library") == "keras-trim"]
        return [line for line in own if line["backend"] != self.backend]

    def scores(self, target, library="keras-trim"):
        """Returns the `summary` of the test scores, or `None` if there are no runs."""
        return summary([row["test"] for row in self.rows(target, library).values()])

    def drop(self, target, library="keras-trim"):
        """Returns the `summary` of the drops of all seeds with both runs, or `None`."""
        dense, sparse = self.rows(None), self.rows(target, library)
        return summary([dense[s]["test"] - sparse[s]["test"] for s in sparse if s in dense])

    def zeros(self, target, library="keras-trim"):
        """Returns the percentage of zeros among all weights, or `None` if there are no runs."""
        rows = self.rows(target, library).values()
        return 100 * statistics.mean(r["zeros"] / r["weights"] for r in rows) if rows else None

    def time(self, target):
        """Returns the latest record with milliseconds and bytes, or `None`."""
        found = [line for line in self.lines if line["kind"] == "time" and line["target"] == target]
        return found[-1] if found else None


def summary(values):
    """Summarizes the values of several seeds.

    Returns:
        Tuple of mean, standard error (`None` for a single value) and count. `None` without values.
    """
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.mean(values), error, len(values)


def is_met(goal_drop, drop):
    """Returns whether the drop is at most `goal_drop`, within one standard error."""
    mean, error, _ = drop
    return mean <= goal_drop + (error or 0.0)


def section(results):
    """Returns the Markdown lines about one model."""
    goal = results.goal
    lines = [f"## {goal.title}", ""]
    runs = [line for line in results.lines if line.get("library") == "keras-trim"]
    if not runs:
        return [*lines, "Not run yet.", ""]
    lines += [_about(results, runs), ""]
    header = [
        "sparsity",
        "zeros in all weights",
        "seeds",
        goal.score,
        "drop",
        "allowed drop",
        "goal",
        f"{goal.score} in TFMOT's guide",
        f"{goal.score} with TFMOT",
    ]
    header += ["`.ktrim`", "LiteRT file", "engine", "LiteRT", "ONNX Runtime"]
    lines += [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    lines += [_line(_cells(results, target)) for target in (None, *goal.targets)]
    lines += ["", *_notes(results)]
    if (DOCS / "images" / f"results_{results.name}.png").exists():
        lines += [
            f"![{goal.title}: {goal.score} over sparsity](images/results_{results.name}.png)",
            "",
        ]
    return lines


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _cells(results, target):
    goal = results.goal
    rows = results.rows(target)
    reported = goal.dense if target is None else goal.sparse.get(target)
    label = "dense" if target is None else _percent(target)
    found = results.scores(target)
    if found is None:
        return [label, "", "0", "not run yet", *[""] * 3, _number(reported), *[""] * 6]
    allowed = None if target is None else goal.drop(target)
    drop = None if target is None else results.drop(target)
    verdict = "" if allowed is None or not drop else "met" if is_met(allowed, drop) else "missed"
    time = results.time(target) or {}
    runtimes = ("keras-trim", "litert", "onnxruntime")
    return [
        label,
        f"{results.zeros(target):.1f} %",
        str(found[2]),
        _value(found),
        "" if drop is None else _value(drop),
        _number(allowed),
        verdict,
        _number(reported),
        _value(results.scores(target, "TFMOT")) if target is not None else "",
        _bytes(statistics.mean(row["ktrim_bytes"] for row in rows.values())),
        _bytes(time.get("litert_bytes")),
        *(_milliseconds(time.get("milliseconds", {}).get(runtime)) for runtime in runtimes),
    ]


_NEW_STATISTICS = (
    "In all rows, the statistics of batch normalization are then estimated anew from 512 training "
    "images. "
)


def _about(results, runs):
    first = runs[0]
    versions = first["versions"]
    packages = ", ".join(
        f"{name} {versions[name]}"
        for name in ("keras", "tensorflow-cpu", "jax", "torch")
        if name in versions
    )
    dense = first["dense_layer"]
    return (
        f"{first['data']}. Each row trains for {first['steps']:,} steps of {first['batch_size']} "
        f"examples, with a learning rate of {first['rate']:g} and cosine decay. "
        f"Sparsity grows until step {first['schedule']['end_step']:,}. "
        + (f"`{dense}` stays dense, as chosen on the validation set. " if dense else "")
        + (_NEW_STATISTICS if first.get("new_statistics") else "")
        + f"Trained with {_BACKENDS[results.backend]} on {first['machine']} ({packages})."
    )


def _notes(results):
    """Returns lines about missing rows, runs on other backends, and hand-written notes."""
    goal, notes = results.goal, []
    missing = [t for t in (None, *goal.targets) if not results.rows(t)]
    few = [t for t in (None, *goal.targets) if 0 < len(results.rows(t)) < 3]
    if few:
        names = ", ".join("dense" if t is None else _percent(t) for t in few)
        notes.append(f"Fewer than three seeds have been run for: {names}.")
    if missing:
        names = ", ".join("dense" if t is None else _percent(t) for t in missing)
        notes.append(f"Not run yet: {names}.")
    notes += [
        f"{'Dense' if run['target'] is None else _percent(run['target'])}, seed {run['seed']}, "
        f"on {_BACKENDS[run['backend']]}: {run['test']:.2f}."
        for run in results.on_other_backends()
    ]
    if goal.with_tfmot and not any(results.rows(t, "TFMOT") for t in goal.targets):
        notes.append("TFMOT has not been run yet.")
    if not results.time(None):
        notes.append("Times have not been measured yet.")
    path = RESULTS / f"{results.name}.md"  # hand-written notes
    if path.exists():
        notes.append(path.read_text().strip())
    return [" ".join(notes), ""] if notes else []


def _percent(target):
    return target if isinstance(target, str) else f"{100 * target:g} %"


def _number(value):
    return "" if value is None else f"{value:.2f}"


def _value(found):
    if found is None:
        return ""
    mean, error, _ = found
    return f"{mean:.2f}" if error is None else f"{mean:.2f} ± {error:.2f}"


def _bytes(count):
    return "" if count is None else f"{count / 1000:,.0f} kB"


def _milliseconds(value):
    return "" if value is None else f"{value:.2f} ms"


def small_table(models):
    """Returns the lines of the README's table: one row per model that was run at 80 or 90 %."""
    header = ["model", "score", "dense", "50 %", "80 %", "90 %"]
    lines = [_line(header), _line(["---", "---", *["---:"] * 4])]
    for results in models:
        values = [results.scores(target) for target in (None, 0.5, 0.8, 0.9)]
        if any(values[2:]):
            cells = [_value(value) for value in values]
            lines.append(_line([results.goal.title, results.goal.score, *cells]))
    return lines if len(lines) > 2 else ["No model has been run at 80 or 90 % yet."]


def write(pages, check):
    """Writes texts to files, unless `check` is set. Returns whether they were already the same."""
    same = True
    for path, text in pages.items():
        before = path.read_text() if path.exists() else ""
        same &= before == text
        if before != text and not check:
            path.write_text(text)
            print(f"wrote {path}")
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    arguments = parser.parse_args()
    models = [Results(name) for name in GOALS]
    if not arguments.check:
        from experiments import plots

        for results in models:
            plots.draw(results, DOCS / "images" / f"results_{results.name}.png")
    page = "\n".join([_INTRODUCTION, *(line for r in models for line in section(r))])
    table = "\n".join(small_table(models))
    readme = re.sub(
        r"(<!-- experiments -->\n).*?(<!-- /experiments -->)",
        lambda match: f"{match[1]}{table}\n{match[2]}",
        README.read_text(),
        flags=re.DOTALL,
    )
    same = write({PAGE: page.rstrip() + "\n", README: readme}, arguments.check)
    if arguments.check and not same:
        sys.exit("The pages are out of date. Run `python -m experiments.tables`.")


if __name__ == "__main__":
    main()
