"""Makes the table of attempts to make keras-trim fail from the results files."""

import collections
import json

from benchmarks._common import RESULTS

_BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
_FUZZED = {"fuzz_storage": "`.ktrim`", "fuzz_engine": "`.engine`"}
_MODES = {"bytes": "bytes changed", "structure": "contents changed, checksums valid"}


def make(markdown):
    """Returns the table.

    Args:
        markdown: Function `(header, rows) -> string`.
    """
    rows, machines, unlike = [], set(), 0
    for name, kind in _FUZZED.items():
        content = _load(name)
        machines.add(content["cpu"])
        rows += [_fuzzed(kind, mode, found) for mode, found in content["results"].items()]
    for backend, title in _BACKENDS.items():
        content = _load(f"random_models_{backend}")
        machines.add(content["cpu"])
        rows.append(_random_models(title, content["results"]))
        unlike += content["results"]["engine"].get(_UNLIKE_PREDICT, 0)
    rows += [_kills(title, _load(f"kills_{backend}")) for backend, title in _BACKENDS.items()]
    header = ["tried", "times", "as it should be", "failed", "slowest", "peak memory"]
    why = f" {_WHY_UNLIKE}" if unlike else ""
    return f"{markdown(header, rows)}\n\n{' and '.join(sorted(machines))}. {_EXPLANATION}{why}"


_EXPLANATION = """\
Peak memory is that of the whole process. A mutated file must either load or raise \
`FormatError`, within limits of time and memory. The engine must return what `model.predict` \
returns, or refuse the model with a reason, and a file of the model must restore all \
variables. A run that is killed and restarted until it finishes must end bit for bit like one \
that was never killed."""
_UNLIKE_PREDICT = "equal to the call, unlike predict"
_WHY_UNLIKE = """\
Where the engine failed on TensorFlow, it returned what the model's call returns, from which \
`model.predict` differed ([Predictions](inference.md#what-to-know))."""


def _load(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def _fuzzed(kind, mode, found):
    outcomes = collections.Counter()
    for counts in found["outcomes"].values():
        outcomes.update(counts)
    accepted = sum(outcomes.values()) - outcomes["refused"]
    return [
        f"read a {kind} file, {_MODES[mode]}",
        f"{found['inputs']:,}",
        f"{outcomes['refused']:,} refused, {accepted:,} read",
        len(found["failures"]),
        f"{found['slowest_seconds']:.2f} s",
        f"{found['peak_resident_bytes'] / 1e6:.0f} MB",
    ]


def _random_models(title, found):
    engine = found["engine"]
    refused = f", {engine['refused']} refused" if "refused" in engine else ""
    bad = found["models"] - engine.get("equal", 0) - engine.get("refused", 0)
    bad += found["models"] - found["file"].get("equal", 0)
    return [
        f"run a random model in the engine, {title}",
        found["models"],
        f"{engine.get('equal', 0)} equal{refused}",
        bad,
        "",
        "",
    ]


def _kills(title, found):
    return [
        f"kill a training run, {title}",
        found["kills"],
        f"{found['equal']} of {found['runs']} runs equal",
        found["runs"] - found["equal"],
        "",
        "",
    ]
