"""Writes the results tables into the README and the docs.

    python -m benchmarks.tables [--check]

Each table stands between the comments `<!-- benchmark:NAME -->` and `<!-- /benchmark:NAME -->`. It
is made only from the JSON files in `benchmarks/results`. `--check` reports whether the tables are
up to date.
"""

import argparse
import json
import re
import statistics
import sys

from benchmarks import (
    _distributed_table,
    _headline,
    _inference_table,
    _int8_table,
    _one_shot_table,
    _robustness_table,
    _without_table,
)
from benchmarks._common import RESULTS, ROOT

BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
PEER = "TFMOT"


def load(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(header, rows):
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def where(*names):
    """Returns a sentence on when and where the results were measured."""
    contents = [load(name) for name in names]
    dates = {}
    for content in contents:
        dates.setdefault(content["cpu"], set()).add(content["date"][:10])
    processors = " and ".join(
        f"{cpu} ({', '.join(sorted(days))})" for cpu, days in sorted(dates.items())
    )
    versions = contents[0]["versions"]["keras-trim"]
    packages = ", ".join(
        f"{package} {versions[package]}"
        for package in ("keras", "jax", "tensorflow-cpu", "tensorflow", "torch")
        if package in versions
    )
    cores = "1 core" if contents[0]["cores"] == 1 else f"{contents[0]['cores']} cores"
    return f"{processors}, {cores} of a shared machine; {packages}."


def distributed():
    return _distributed_table.make(markdown, where)


def by_backend(results, cell):
    return [cell(results[backend]) for backend in BACKENDS]


def training_speed():
    mask, mlp, mobilenet = load("mask_update"), load("mlp"), load("mobilenet")
    first, memory = load("first_step"), load("memory")
    partition = mask["results"]["numpy.partition"]["median_seconds"]

    def peer(results, cell):
        return cell(results[PEER]) if PEER in results else ""

    def seconds(result):
        return f"{result['median_seconds']:.2f} s"

    def ratio(result):
        low, high = result["quartiles"]
        return f"{result['ratio']:.3f} ({low:.2f} to {high:.2f})"

    largest = next(key for key in memory["results"]["jax"] if key.startswith("peak, one"))
    rows = [
        [
            f"mask of one weight, 25 M float32 (`np.partition`: {partition:.2f} s)",
            *by_backend(mask["results"], seconds),
            peer(mask["results"], seconds),
            "",
        ],
        [
            "... times faster than TFMOT",
            *by_backend(mask["results"], lambda r: f"{r['peer_over_this']:.1f}x"),
            "",
            "≥ 12x",
        ],
        [
            "... time over `np.partition`",
            *by_backend(mask["results"], lambda r: f"{r['over_partition']:.2f}"),
            peer(mask["results"], lambda r: f"{r['over_partition']:.1f}"),
            "≤ 3",
        ],
        [
            "time of a training step, pruned over dense: MobileNetV1 96x96, batch 16",
            *by_backend(mobilenet["results"], ratio),
            peer(mobilenet["results"], ratio),
            "≤ 1.02",
        ],
        [
            "the same for MLP 784-512-512-10, batch 128",
            *by_backend(mlp["results"], ratio),
            peer(mlp["results"], ratio),
            "≤ 1.05",
        ],
        [
            "extra time to the first step, MobileNetV1",
            *by_backend(first["results"], lambda r: f"{r['extra_seconds']:.2f} s"),
            peer(first["results"], lambda r: f"{r['extra_seconds']:.2f} s"),
            "≤ 2 s",
        ],
        [
            "permanent memory, bytes per pruned weight",
            *by_backend(memory["results"], lambda r: f"{r['bytes_per_pruned_weight']:.0f}"),
            peer(memory["results"], lambda r: f"{r['bytes_per_pruned_weight']:.0f}"),
            "≤ 1",
        ],
        [
            "temporary memory of an update, over the largest weight's bytes",
            *by_backend(memory["results"], lambda r: f"{r[largest]['grown']:.2f}"),
            peer(memory["results"], lambda r: f"{r[largest]['grown']:.2f}"),
            "≤ 2",
        ],
    ]
    names = ("mask_update", "mlp", "mobilenet", "first_step", "memory")
    table = markdown(["", *BACKENDS.values(), "TFMOT 0.8.1", "goal"], rows)
    return (
        f"{table}\n\n{where(*names)} Values are medians of interleaved pairs. In the training "
        f"steps, masks are updated every 100 steps. We measured {_pairs(mobilenet)} for "
        f"MobileNetV1, and {_pairs(mlp)} for the MLP. The quartiles of the pairs' ratios are in "
        "parentheses. [benchmarks/README.md](../benchmarks/README.md) says how each figure is "
        "measured."
    )


def _pairs(content):
    """Returns the number of pairs of blocks that were measured on each backend."""
    settings = content["settings"]
    pairs = content["results"]["jax"]["pairs"]
    rounds = settings["rounds"]
    processes = "one process" if rounds == 1 else f"{rounds} processes"
    return f"{pairs} pairs of {settings['block']} steps in {processes}"


def accuracy():
    content = load("accuracy")
    results, settings = content["results"], content["settings"]

    def cell(result):
        return f"{result['mean_accuracy']:.2%} ± {100 * result['std_accuracy']:.2f}"

    rows = [["dense", cell(results["dense"]["dense"]), ""]]
    for target, by_name in results.items():
        if target != "dense":
            name = target if ":" in target else f"{float(target):.0%}"
            rows.append([name, cell(by_name["keras-trim"]), cell(by_name["TFMOT"])])
    table = markdown(["sparsity", "keras-trim", "TFMOT 0.8.1"], rows)
    at_80 = results["0.8"]
    lost = {
        "dense training": _difference(at_80["keras-trim"], results["dense"]["dense"]),
        "TFMOT": _difference(at_80["keras-trim"], at_80["TFMOT"]),
    }
    differences = " and ".join(f"{points} to {other}" for other, points in lost.items())
    return (
        f"{table}\n\nTest accuracy of a small convolutional network on MNIST: mean and standard "
        f"deviation over {len(settings['seeds'])} seeds, in points. Each seed trains for "
        f"{settings['dense_epochs']} epochs dense, then for {settings['epochs']} more, dense or "
        "pruned. Both libraries start from the same weights and use the same schedule and order of "
        f"examples ({content['date'][:10]}, keras-trim on {BACKENDS[settings['backend']]}). At "
        f"80 %, the difference is {differences} (in points, mean over the seeds ± its standard "
        "error)."
    )


def storage():
    sizes, speed, memory = (load(f"storage_{part}") for part in ("sizes", "speed", "memory"))
    rows = []
    goals = {"0.8": ("≥ 5.5x", "≥ 15x"), "0.9": ("≥ 10x", "≥ 28x")}
    for model, by_sparsity in sizes["results"].items():
        for sparsity, r in by_sparsity.items():
            if sparsity in ("0.8", "0.9", "2:4"):
                rows.append(
                    [
                        f"{model}, {sparsity if ':' in sparsity else f'{float(sparsity):.0%}'}",
                        f"{r['factor']:.2f}x",
                        goals.get(sparsity, ("", ""))[0],
                        f"{r['bound_factor']:.2f}x",
                        f"{r['weights_bytes'] / r['gzip_bytes']:.2f}x" if "gzip_bytes" in r else "",
                        # A trained model's archive also has the state of its optimizer.
                        ""
                        if "trained" in model.split()
                        else f"{r['weights_bytes'] / r['keras_recompressed_bytes']:.2f}x",
                        f"{r['int8_factor']:.2f}x",
                        goals.get(sparsity, ("", ""))[1],
                        f"{r['int8_bound_factor']:.2f}x",
                    ]
                )
    header = ["times smaller than in memory", "`.ktrim`", "goal", "entropy bound", "`.h5`, gzip -9"]
    header += ["`compress_keras`", "`.ktrim`, int8", "goal", "its bound"]
    slowest = {
        key: min(r[f"{key}_mb_per_second"] for r in speed["results"].values())
        for key in ("encode", "decode")
    }
    fast = speed["results"]["0.8"]
    peaks = memory["results"]["peaks"]

    def listed(what):
        return ", ".join(
            f"{peaks[what][backend]['peak_over_decoded']:.2f} on {name}"
            for backend, name in BACKENDS.items()
        )

    return (
        f"{markdown(header, rows)}\n\n{where('storage_sizes', 'storage_speed')} Factors "
        "compare whole files, including the model's structure, with the weights in memory. The "
        "bound is the order-0 entropy of masks and byte planes of the weights alone. The MNIST "
        "network is trained, and the others have normally distributed kernels. "
        "[benchmarks/README.md](../benchmarks/README.md#goals-that-are-missed) explains why some "
        "miss a goal. At 80 %, one core writes "
        f"{fast['encode_mb_per_second']:,.0f} MB/s of float32 weights and reads "
        f"{fast['decode_mb_per_second']:,.0f} MB/s; at any sparsity, it writes at least "
        f"{slowest['encode']:,.0f} MB/s and reads at least {slowest['decode']:,.0f} MB/s. Loading "
        f"ResNet50 as arrays takes {peaks['load_arrays']['jax']['peak_over_decoded']:.2f} times "
        "the memory of its weights. For loading it as a model, the factor is "
        f"{listed('load')} (with `keras.models.load_model`, "
        f"{listed('keras.models.load_model')})."
    )


def inference():
    return _inference_table.make(markdown)


def without():
    return _without_table.make(markdown)


def int8():
    return _int8_table.make(markdown)


def one_shot():
    return _one_shot_table.make(markdown)


def robustness():
    return _robustness_table.make(markdown)


def _difference(result, other):
    """Returns the mean difference in accuracy in points, paired by seed, and its standard error."""
    pairs = zip(result["accuracies"], other["accuracies"], strict=True)
    points = [100 * (mine - theirs) for mine, theirs in pairs]
    error = statistics.stdev(points) / len(points) ** 0.5
    return f"{statistics.mean(points):+.2f} ± {error:.2f}"


def deployment():
    content = load("deployment")
    sizes, times = content["results"]["mobilenet"], content["results"]["dense_layers"]

    def size(result):
        mark = "" if result["is_sparse"] else " (dense)"
        return f"{result['bytes'] / 1e6:.2f} MB{mark}"

    rows = [[name, *map(size, results.values())] for name, results in sizes.items()]
    files = markdown(["MobileNetV1 224, LiteRT file", "float32", "float16", "int8"], rows)
    batches = list(times)
    dense = {batch: times[batch]["dense"]["median_ms"] for batch in batches}
    rows = [
        [name, *(f"{times[batch][name]['median_ms'] / dense[batch]:.2f}" for batch in batches)]
        for name in times[batches[0]]
        if name != "dense"
    ]
    speed = markdown(["two Dense layers of 2048, time relative to dense", *batches], rows)
    version = content["versions"]["keras-trim"]["ai-edge-litert"]
    return (
        f"{files}\n\n{speed}\n\n{content['cpu']}, one thread; {content['date'][:10]}; "
        f"ai-edge-litert {version}. Random weights, pruned by magnitude."
    )


# Name -> (the file that contains it, its maker).
TABLES = {
    "headline": ("README.md", _headline.make),
    "training_speed": ("docs/benchmarks.md", training_speed),
    "distributed": ("docs/benchmarks.md", distributed),
    "accuracy": ("docs/benchmarks.md", accuracy),
    "storage": ("docs/benchmarks.md", storage),
    "inference": ("docs/benchmarks.md", inference),
    "deployment": ("docs/deployment.md", deployment),
    "one_shot": ("docs/one_shot.md", one_shot),
    "without": ("docs/benchmarks.md", without),
    "int8": ("docs/should_i_prune.md", int8),
    "robustness": ("docs/benchmarks.md", robustness),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    check = parser.parse_args().check
    is_stale = False
    for name, (file, make) in TABLES.items():
        path = ROOT / file
        old = path.read_text()
        begin, end = f"<!-- benchmark:{name} -->", f"<!-- /benchmark:{name} -->"
        table = f"{begin}\n{make()}\n{end}"
        new, count = re.subn(f"{begin}.*?{end}", lambda _, t=table: t, old, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"{file} must have {begin} and {end} once. Found: {count}")
        is_stale |= new != old
        if not check:
            path.write_text(new)
    if check and is_stale:
        sys.exit("The tables are out of date. Run `python -m benchmarks.tables`.")


if __name__ == "__main__":
    main()
