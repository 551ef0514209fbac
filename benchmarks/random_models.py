"""Compares random models with Keras: the engine's outputs, and what a file restores.

    KERAS_BACKEND=jax python -m benchmarks.random_models [--count 334] [--first 0]

The models are those of `tests/random_models.py`, one per seed. For each, this reports whether the
engine's outputs equal those of `model.predict_on_batch`, or why the engine refused the model, and
whether `.ktrim` restored all variables. A third of a thousand runs on each backend. The results are
one file per backend: `random_models_jax.json` and so on. Each model is also a line of a file in
`build/`, from which `--resume` continues a stopped run.
"""

import argparse
import collections
import gc
import json
import pathlib
import random
import sys
import tempfile
import time
import warnings

from benchmarks._common import (
    OUR_PACKAGES,
    QUICK_RESULTS,
    RESULTS,
    ROOT,
    package_versions,
    write_result,
)

_TOLERANCE = 2e-3  # relative to the largest output


def _compare(model, seed, folder):
    """Returns the outcome for a model, in the engine and from a file."""
    import keras
    import numpy as np
    import random_models

    import keras_trim
    from keras_trim.inference import Engine

    variables = model.variables
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]
    data = random_models.make_data(model, random.Random(seed).choice([1, 2, 5]), seed)
    expected = keras.tree.flatten(model.predict_on_batch(data))
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    found = {"seed": seed, "engine": "equal", "file": "equal", "in_keras": [], "error": 0.0}
    try:
        engine = Engine(model, 1)
        engine._tuner.seconds = 1e-4  # a short search: this test does not need the fastest kernels
        got = keras.tree.flatten(engine(data))
        found["in_keras"] = sorted(
            type(node.operation.function).__name__
            for node in engine._graph.nodes
            if type(node.operation).__name__ == "KerasCall"
        )
    except (ValueError, NotImplementedError) as error:
        found["engine"] = f"refused: {error}"
    else:
        found["error"] = _difference(got, expected)
        if found["error"] >= _TOLERANCE:
            # TensorFlow's graph optimizer takes maximum(2 * x, x) for a leaky ReLU.
            called = map(keras.ops.convert_to_numpy, keras.tree.flatten(model(data)))
            is_call = _difference(got, called) < _TOLERANCE
            found["engine"] = "equal to the call, unlike predict" if is_call else "different"
    path = pathlib.Path(folder, "model.ktrim")
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    try:
        keras_trim.save(model, path)
    except ValueError as error:
        found["file"] = f"refused: {error}"
        return found
    loaded = keras_trim.load(path)
    values = [np.array(keras.ops.convert_to_numpy(v)) for v in loaded.variables]
    same = len(values) == len(before) and all(map(np.array_equal, values, before))
    if not same:
        found["file"] = "different"
    return found


def _difference(got, expected):
    """Returns the largest difference between lists of outputs, relative to the largest values."""
    import numpy as np

    errors = [0.0]
    for a, b in zip(got, expected, strict=True):
        if a.shape != np.shape(b):
            return float("inf")
        b = np.asarray(b, "float64")
        error = np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-3)
        errors.append(float(error) if np.isfinite(error) else float("inf"))
    return max(errors)


def _try(seed):
    """Returns the outcome for the model of a seed, with its seconds."""
    import keras
    import random_models

    start = time.perf_counter()
    keras.utils.set_random_seed(seed)
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = random_models.make_model(random.Random(seed).choice)
            found = _compare(model, seed, folder)
    except Exception as error:
        found = {"seed": seed, "engine": f"failed: {error!r:.300}", "file": ""}
    return {**found, "seconds": round(time.perf_counter() - start, 2)}


def run(first, count, lines):
    """Yields the results so far from time to time.

    Args:
        first, count: Integers: the seeds.
        lines: Path of the file with one line per model.
    """
    import keras

    models = [json.loads(line) for line in lines.read_text().splitlines()]
    models = [found for found in models if not _is_bad(found)]  # try failed models again
    seeds = set(range(first, first + count)) - {found["seed"] for found in models}
    gc.freeze()  # otherwise each collection scans all modules of three frameworks
    for seed in sorted(seeds):
        models.append(_try(seed))
        with lines.open("a") as file:
            file.write(json.dumps(models[-1]) + "\n")
        if {models[-1]["engine"], models[-1]["file"]} != {"equal"}:
            print(models[-1], flush=True)
        if len(models) % 10 == 0:
            keras.backend.clear_session()
        if len(models) % 20 == 0 or len(models) == count:
            yield _summarize(models, first)


def _is_bad(found):
    return found["engine"].startswith(("failed", "different")) or found["file"] == "different"


def _summarize(models, first):
    return {
        "models": len(models),
        "first_seed": first,
        "seconds": round(sum(found["seconds"] for found in models)),
        "engine": _counted(found["engine"] for found in models),
        "file": _counted(found["file"] for found in models),
        "largest_error": max(f.get("error", 0.0) for f in models if f["engine"] == "equal"),
        "in_keras": _counted(name for found in models for name in found.get("in_keras", ())),
        "not_equal": [found for found in models if {found["engine"], found["file"]} != {"equal"}],
    }


def _counted(words):
    return dict(collections.Counter(word.partition(":")[0] for word in words).most_common())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=334)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue from the last run's lines")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    import keras

    warnings.simplefilter("ignore")
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # Compiling takes nine tenths of the time, and each model runs once.
        jax.config.update("jax_disable_most_optimizations", True)
    folder = RESULTS if args.count >= 333 else QUICK_RESULTS
    settings = {"backend": backend, "tolerance": _TOLERANCE}
    versions = {"keras-trim": package_versions(OUR_PACKAGES)}
    lines = QUICK_RESULTS / f"random_models_{backend}_{args.first}.jsonl"
    lines.parent.mkdir(parents=True, exist_ok=True)
    if not (args.resume and lines.exists()):
        lines.write_text("")
    for results in run(args.first, args.count, lines):
        write_result(folder, f"random_models_{backend}", settings, versions, results)
    raise SystemExit(1 if any(map(_is_bad, results["not_equal"])) else 0)


if __name__ == "__main__":
    main()
