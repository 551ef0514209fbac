"""Compares the engine of this checkout with another one, in turns on the same `.engine` files.

    git worktree add ../before v0.1.0
    python -m benchmarks.versions ../before [--networks mobilenet_v1 mlp]

Loads both versions and checks that their outputs are the same. Then they take turns of a tenth of
a second, and a round is one turn of each. The ratio is the median of the ratios within rounds, so
slow phases of the machine hardly matter. It is above 1 if this checkout is slower. Without a cache
in `--work`, the first call tunes and, for the first network, compiles kernels.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys

import numpy as np

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
# Writes the seconds of its first call, then waits for lines: each is how long a turn takes.
SERVE = """
import json, sys, time
import numpy as np
from keras_trim.inference import Engine
path, num_threads, answers = sys.argv[1:]
engine = Engine.load(path, num_threads=int(num_threads))
(spec,) = engine._graph.input_specs
x = np.random.default_rng(0).standard_normal((1, *spec["shape"][1:]), np.float32)
start = time.perf_counter()
np.save(answers, engine(x))
print(time.perf_counter() - start, flush=True)
for line in sys.stdin:
    print(float(np.median(engine.benchmark(x, float(line)).times)), flush=True)
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
    """A checkout with its own cache folder."""

    def __init__(self, tree, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self._tree, self._folder = tree, folder

    def start(self, code, *arguments):
        environment = os.environ | {
            "PYTHONPATH": str(self._tree),
            "KERAS_BACKEND": "torch",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_TRIM_CACHE_DIR": str(self._folder / "cache"),
        }
        command = [sys.executable, "-c", code, *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self._tree, env=environment, **pipes)

    def load(self, path, num_threads):
        """Returns a measuring process, the seconds of its first call, and its output."""
        answers = self._folder / "answers.npy"
        process = self.start(SERVE, path, num_threads, answers)
        seconds = float(process.stdout.readline())
        return process, seconds, np.load(answers)


def compare(versions, path, num_threads, rounds):
    """Returns a dict: version -> seconds of its first call and of each round; and the ratio."""
    found, processes, answers = {"first_call": {}, "seconds": {}}, {}, {}
    for key, version in versions.items():
        processes[key], found["first_call"][key], answers[key] = version.load(path, num_threads)
        found["seconds"][key] = []
    np.testing.assert_allclose(answers["now"], answers["before"], rtol=1e-3, atol=1e-4)
    for i in range(rounds):
        for key in ("before", "now") if i % 2 else ("now", "before"):
            processes[key].stdin.write("0.1\n")
            processes[key].stdin.flush()
            found["seconds"][key].append(float(processes[key].stdout.readline()))
    for process in processes.values():
        process.communicate()
    pairs = zip(found["seconds"]["now"], found["seconds"]["before"], strict=True)
    found["now_over_before"] = statistics.median(now / before for now, before in pairs)
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=pathlib.Path, help="checkout of the other version")
    parser.add_argument("--networks", nargs="+", choices=SPARSITIES, default=list(SPARSITIES))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "versions")
    arguments = parser.parse_args()
    other, work = arguments.other.resolve(), arguments.work.resolve()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=other, capture_output=True, text=True
    ).stdout.strip()
    versions = {"before": Version(other, work / commit), "now": Version(ROOT, work / "now")}
    settings = {"other": commit, "rounds": arguments.rounds}
    packages, results = {"keras-trim": package_versions(OUR_PACKAGES)}, {}
    for name in arguments.networks:
        path = work / f"{name}.engine"
        if not path.exists():
            writer = versions["before"].start(WRITE, name, SPARSITIES[name], path)
            if writer.wait():
                sys.exit(f"{other} cannot write {name}")
        for num_threads in (1, 2):
            found = compare(versions, path, num_threads, arguments.rounds)
            results[f"{name}, {num_threads} threads"] = found
            before, now = (1e3 * min(found["seconds"][key]) for key in versions)
            first = {key: round(seconds, 1) for key, seconds in found["first_call"].items()}
            print(
                f"{name}, {num_threads} threads: at best {before:.3f} and {now:.3f} ms, "
                f"{found['now_over_before']:.3f} times as long; first call {first} s",
                flush=True,
            )
        write_result(RESULTS, "engine_versions", settings, packages, results)


if __name__ == "__main__":
    main()
