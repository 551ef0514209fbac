"""The engine of this checkout beside that of another one, in turns on the same `.engine` files.

    git worktree add ../before v0.1.0
    python -m benchmarks.versions ../before [--networks mobilenet_v1 mlp] [--rounds 5]

Each round is a new process for each version, with a cache of kernels and choices of its own. Prints
medians of the rounds, and their ratio: above 1, this checkout is slower. A first call, with an
empty cache, compiles kernels (for the first network) and tunes.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks._common import OUR_PACKAGES, RESULTS, ROOT, package_versions, write_result

SPARSITIES = {
    "mobilenet_v1": 0.9,
    "mobilenet_v2": 0.9,
    "inception_v3": 0.875,
    "resnet50": 0.9,
    "ds_cnn": 0.8,
    "lstm": 0.9,
    "mlp": 0.95,
}
MEASURE = """
import json, sys, time
import numpy as np
from keras_trim.inference import Engine
path, num_threads, seconds, check = sys.argv[1:]
engine = Engine.load(path, num_threads=int(num_threads))
(spec,) = engine._graph.input_specs
x = np.random.default_rng(0).standard_normal((1, *spec["shape"][1:]), np.float32)
start = time.perf_counter()
y = engine(x)
planned = time.perf_counter() - start
np.save(check, y)
print(json.dumps([planned, float(np.median(engine.benchmark(x, float(seconds)).times))]))
"""
WRITE = """
import sys
import keras
from benchmarks import _inference_models as models
from keras_trim.inference import Engine
name, sparsity, path = sys.argv[1:]
model = models.NETWORKS[name].build(keras)
model.set_weights(models.draw_weights(keras, name, float(sparsity)))
Engine(model).save(path)
"""


class Version:
    """A checkout, and a folder for its cache."""

    def __init__(self, tree, folder):
        self._tree, self._folder = tree, folder
        folder.mkdir()

    def run(self, code, *arguments):
        environment = os.environ | {
            "PYTHONPATH": str(self._tree),
            "KERAS_BACKEND": "torch",
            "KERAS_TRIM_CACHE_DIR": str(self._folder / "cache"),
        }
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self._tree, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    def measure(self, path, num_threads, seconds):
        answers = self._folder / "answers.npy"
        planned, run = json.loads(self.run(MEASURE, path, num_threads, seconds, answers))
        return planned, run, answers


def compare(names, other, rounds, seconds):
    """Returns a dict: network and threads -> seconds of each round, and ratios."""
    import numpy as np

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        versions = {"before": Version(other, folder / "a"), "now": Version(ROOT, folder / "b")}
        for name in names:
            path = folder / f"{name}.engine"
            versions["before"].run(WRITE, name, SPARSITIES[name], path)
            for num_threads in (1, 2):
                found = {"planning": {}, "seconds": {}}
                for i in range(rounds + 1):
                    answers = {}
                    for key in ("before", "now") if i % 2 else ("now", "before"):
                        planned, run, answers[key] = versions[key].measure(
                            path, num_threads, seconds
                        )
                        found["planning"].setdefault(key, []).append(planned)
                        if i:  # the first one compiles and tunes
                            found["seconds"].setdefault(key, []).append(run)
                    before, now = (np.load(answers[key]) for key in ("before", "now"))
                    np.testing.assert_allclose(now, before, rtol=1e-3, atol=1e-4)
                medians = {key: statistics.median(v) for key, v in found["seconds"].items()}
                found["now_over_before"] = medians["now"] / medians["before"]
                label = f"{name}, {num_threads} threads"
                results[label] = found
                first = {key: round(v[0], 1) for key, v in found["planning"].items()}
                print(
                    f"{label}: {1e3 * medians['before']:.3f} -> {1e3 * medians['now']:.3f} ms, "
                    f"{found['now_over_before']:.3f}; first call {first} s",
                    flush=True,
                )
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=pathlib.Path, help="a checkout of the other version")
    parser.add_argument("--networks", nargs="+", choices=SPARSITIES, default=list(SPARSITIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    other = arguments.other.resolve()
    results = compare(arguments.networks, other, arguments.rounds, arguments.seconds)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=other, capture_output=True, text=True
    ).stdout.strip()
    settings = {"other": commit, "rounds": arguments.rounds, "seconds": arguments.seconds}
    write_result(
        RESULTS,
        "engine_versions",
        settings,
        {"keras-trim": package_versions(OUR_PACKAGES)},
        results,
    )


if __name__ == "__main__":
    main()
