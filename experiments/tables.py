"""Writes docs/results.md, its plots, and the small table of the README, from the lines of JSON.

    python -m experiments.tables [--check]

`--check` only tells whether the pages are up to date.
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

Each model is trained densely, or taken as trained. From that checkpoint it trains on for the same
steps: densely, and at each sparsity. Optimizer, schedule and learning rate are the same for all
rows of a model. They are chosen on validation data by one rule: at 80 % zeros, with the first seed,
the pair of learning rate and "the first layer is pruned, or stays dense" with the best validation
score. What is tested is the exported file, read again.

Scores are accuracies in per cent, or BLEU: the mean of all seeds, and its standard error. *Drop* is
the dense score less the sparse one of the same seed, in points. The goal of a row is a drop no
larger than that of [the page](https://www.tensorflow.org/model_optimization/guide/pruning) that
this project implements, to within one standard error. Data here are smaller than the page's, so
only drops can be compared. Zeros are counted over all weights that are pruned. Milliseconds are
medians at batch 1 on one thread, timed in turns on one machine: the sparse file in the engine, and
the same model in LiteRT and ONNX Runtime, which compute with the zeros.

[experiments/README.md](../experiments/README.md) says how to run a row on your own data.
"""


class Results:
    """The runs of one model.

    Args:
        name: String, as in `GOALS`.
    """

    def __init__(self, name, folder=RESULTS):
        self.name, self.goal = name, GOALS[name]
        path = folder / f"{name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        self.lines = [json.loads(line) for line in lines]
        own = [line for line in self.lines if line.get("library") == "keras-trim"]
        counts = collections.Counter(line["backend"] for line in own)
        # What the table shows; runs on other backends are named below it.
        self.backend = counts.most_common(1)[0][0] if counts else None

    def rows(self, target, library="keras-trim"):
        """Dict: seed -> run."""
        backend = self.backend if library == "keras-trim" else "tensorflow"
        wanted = {"kind": "row", "target": target, "library": library, "backend": backend}
        return {
            line["seed"]: line
            for line in self.lines
            if all(line.get(key) == value for key, value in wanted.items())
        }

    def on_other_backends(self):
        """List of runs."""
        own = [line for line in self.lines if line.get("library") == "keras-trim"]
        return [line for line in own if line["backend"] != self.backend]

    def scores(self, target, library="keras-trim"):
        """Mean and standard error of the test scores, or `None` if nothing was run."""
        return summary([row["test"] for row in self.rows(target, library).values()])

    def drop(self, target, library="keras-trim"):
        """Mean and standard error of the drops of the seeds that have both, or `None`."""
        dense, sparse = self.rows(None), self.rows(target, library)
        return summary([dense[s]["test"] - sparse[s]["test"] for s in sparse if s in dense])

    def zeros(self, target, library="keras-trim"):
        """Float: zeros over all weights of the model in per cent; `None` if nothing was run."""
        rows = self.rows(target, library).values()
        return 100 * statistics.mean(r["zeros"] / r["weights"] for r in rows) if rows else None

    def time(self, target):
        """Dict: milliseconds and bytes, or `None`."""
        found = [line for line in self.lines if line["kind"] == "time" and line["target"] == target]
        return found[-1] if found else None


def summary(values):
    """Tuple: mean, standard error (`None` of a single value), count; or `None` without values."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.mean(values), error, len(values)


def is_met(goal_drop, drop):
    """Bool: the drop is no larger than the goal, to within one standard error."""
    mean, error, _ = drop
    return mean <= goal_drop + (error or 0.0)


def section(results):
    """The lines of Markdown on one model."""
    goal = results.goal
    lines = [f"## {goal.title}", ""]
    runs = [line for line in results.lines if line.get("library") == "keras-trim"]
    if not runs:
        return [*lines, "Not run yet.", ""]
    lines += [_about(results, runs), ""]
    header = [
        "zeros",
        "of all weights",
        "seeds",
        goal.score,
        "drop",
        "allowed",
        "goal",
        "the page",
        "TFMOT",
    ]
    header += ["`.ktrim`", "LiteRT file", "engine", "LiteRT", "ONNX Runtime"]
    lines += [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    lines += [_line(_cells(results, target)) for target in (None, *goal.targets)]
    lines += ["", *_notes(results)]
    if (DOCS / "images" / f"results_{results.name}.png").exists():
        lines += [
            f"![{goal.title}: {goal.score} over zeros](images/results_{results.name}.png)",
            "",
        ]
    return lines


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _cells(results, target):
    goal = results.goal
    rows = results.rows(target)
    page = goal.dense if target is None else goal.sparse.get(target)
    label = "dense" if target is None else _percent(target)
    found = results.scores(target)
    if found is None:
        return [label, "", "0", "not run yet", *[""] * 3, _number(page), *[""] * 6]
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
        _number(page),
        _value(results.scores(target, "TFMOT")) if target is not None else "",
        _bytes(statistics.mean(row["ktrim_bytes"] for row in rows.values())),
        _bytes(time.get("litert_bytes")),
        *(_milliseconds(time.get("milliseconds", {}).get(runtime)) for runtime in runtimes),
    ]


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
        f"{first['data']}. {first['steps']:,} further steps of {first['batch_size']} examples from "
        f"each checkpoint; learning rate {first['rate']:g}, falling as a cosine does; zeros grow "
        f"until step {first['schedule']['end_step']:,}. "
        + (f"`{dense}` stays dense (chosen on validation data). " if dense else "")
        + f"{_BACKENDS[results.backend]}; {packages}; {first['machine']}."
    )


def _notes(results):
    """Sentences on what is missing, and where a goal is missed."""
    goal, notes = results.goal, []
    missing = [t for t in (None, *goal.targets) if not results.rows(t)]
    few = [t for t in (None, *goal.targets) if 0 < len(results.rows(t)) < 3]
    if few:
        names = ", ".join("dense" if t is None else _percent(t) for t in few)
        notes.append(f"Fewer than three seeds were run of: {names}.")
    if missing:
        names = ", ".join("dense" if t is None else _percent(t) for t in missing)
        notes.append(f"Not run yet: {names}.")
    notes += [
        f"{'Dense' if run['target'] is None else _percent(run['target'])}, seed {run['seed']}, "
        f"on {_BACKENDS[run['backend']]}: {run['test']:.2f}."
        for run in results.on_other_backends()
    ]
    if goal.with_tfmot and not any(results.rows(t, "TFMOT") for t in goal.targets):
        notes.append("TFMOT was not run yet.")
    if not results.time(None):
        notes.append("Times were not measured yet.")
    path = RESULTS / f"{results.name}.md"  # what a person found out
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


def small_table(everything):
    """The README's table: one row per model of which a sparse row was run."""
    header = ["model", "score", "dense", "50 %", "80 %", "90 %"]
    lines = [_line(header), _line(["---", "---", *["---:"] * 4])]
    for results in everything:
        values = [results.scores(target) for target in (None, 0.5, 0.8, 0.9)]
        if any(values[1:]):
            cells = [_value(value) for value in values]
            lines.append(_line([results.goal.title, results.goal.score, *cells]))
    return lines if len(lines) > 2 else ["No sparse row was run yet."]


def write(pages, check):
    """Writes texts to files; returns whether they were the same before."""
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
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    everything = [Results(name) for name in GOALS]
    if not arguments.check:
        from experiments import plots

        for results in everything:
            plots.draw(results, DOCS / "images" / f"results_{results.name}.png")
    page = "\n".join([_INTRODUCTION, *(line for r in everything for line in section(r))])
    table = "\n".join(small_table(everything))
    readme = re.sub(
        r"(<!-- experiments -->\n).*?(<!-- /experiments -->)",
        lambda match: f"{match[1]}{table}\n{match[2]}",
        README.read_text(),
        flags=re.DOTALL,
    )
    same = write({PAGE: page.rstrip() + "\n", README: readme}, arguments.check)
    if arguments.check and not same:
        sys.exit("The pages are out of date: run `python -m experiments.tables`.")


if __name__ == "__main__":
    main()
