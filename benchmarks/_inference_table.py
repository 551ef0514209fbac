"""Makes the inference tables from the results files."""

import json

from benchmarks import _inference_plot
from benchmarks._common import RESULTS
from benchmarks._inference_models import NETWORKS

FOLDER = RESULTS / "inference"
OTHERS = "inference-*"  # folders of results from other processors
OURS, DENSE, PEER = "keras-trim", ("LiteRT", "ONNX Runtime"), "DeepSparse"
NEW = "warm, a new network"  # its kernels still have to be chosen
_BYTES_PER_WEIGHT = 6  # of a sparse row: a float32 and a column in 16 bits


def make(markdown):
    """Returns the tables and the paragraphs that explain them.

    Args:
        markdown: Function `(header, rows) -> string`.
    """
    contents, machine = _networks(FOLDER), _load("machine")
    if not contents or not machine:
        return "Not measured yet: `python -m benchmarks.inference`."
    paragraphs = [
        _table(markdown, contents, machine),
        _explanation(contents, machine),
        *_other_processors(markdown),
        *_memory(markdown),
        *_compile(),
        *_crossover(),
    ]
    return "\n\n".join(paragraphs)


def _load(name, folder=FOLDER):
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _networks(folder):
    """Returns a dict: name of a network -> its measurements."""
    contents = {name: _load(name, folder) for name in NETWORKS}
    return {name: content for name, content in contents.items() if content}


def _table(markdown, contents, machine):
    rows = []
    for name, content in contents.items():
        for sparsity, result in content["results"].items():
            goals = NETWORKS[name].goals[float(sparsity)]
            rows.append(_row(NETWORKS[name].title, float(sparsity), result, goals, machine))
    header = [
        "network, one example",
        "zeros",
        *(f"{runtime}, ms" for runtime in (OURS, *DENSE, PEER)),
        "speedup over the fastest dense",
        "goal",
        "speedup over DeepSparse",
        "goal",
        "of peak",
    ]
    return markdown(header, rows)


def _other_processors(markdown):
    for folder in sorted(RESULTS.glob(OTHERS)):
        contents, machine = _networks(folder), _load("machine", folder)
        dates = sorted({content["date"][:10] for content in contents.values()})
        limits = machine["results"]["1"]
        yield (
            f"On another processor, {machine['cpu']}, {machine['cores']} cores of a shared machine "
            f"({limits['flops'] / 1e9:.0f} GFLOP/s each); {' and '.join(dates)}:"
        )
        yield _table(markdown, contents, machine)


def _row(title, sparsity, result, goals, machine):
    one = result["threads"]["1"]
    milliseconds = [
        f"{one['runtimes'][runtime]['ms']:.2f}" if runtime in one["runtimes"] else "-"
        for runtime in (OURS, *DENSE, PEER)
    ]
    found = result["threads"].values()
    dense = " / ".join(f"{r['speedup_over'][r['fastest_dense']]:.2f}x" for r in found)
    has_peer = all(PEER in r["speedup_over"] for r in found)
    peer = " / ".join(f"{r['speedup_over'][PEER]:.2f}x" for r in found) if has_peer else "-"
    return [
        title, f"{sparsity:.1%}".replace(".0%", "%"), *milliseconds, dense, _goal(goals[0]), peer,
        _goal(goals[1]), _fraction(result["layers"], sparsity, machine),
    ]  # fmt: skip


def _goal(goal):
    return "" if goal is None else f"≥ {goal}x"


def _fraction(layers, sparsity, machine):
    """Returns how much of the limit sparse layers reach: memory bandwidth, or else FLOP/s."""
    limits = machine["results"]["1"]
    rows = [layer for layer in layers if layer["kernel"].startswith("sparse")]
    if not sparsity or not rows:
        return ""
    seconds = sum(layer["ms"] for layer in rows) / 1e3
    kept = sum(layer["kept"] for layer in rows)
    if all(layer["kernel"] == "sparse rows" for layer in rows):
        return f"{_BYTES_PER_WEIGHT * kept / seconds / limits['read_bytes']:.0%} of memory's"
    return f"{2 * kept / seconds / limits['flops']:.0%}"


def _explanation(contents, machine):
    first = next(iter(contents.values()))
    versions = first["versions"]
    packages = ", ".join(
        f"{package} {version}"
        for runtime in versions.values()
        for package, version in runtime.items()
        if package in ("numba", "ai-edge-litert", "onnxruntime", "deepsparse")
    )
    dates = sorted({content["date"][:10] for content in contents.values()})
    limits = machine["results"]["1"]
    return (
        f"Measured on {first['cpu']}, {first['cores']} cores of a shared virtual machine, on "
        f"{' and '.join(dates)}, with {packages}. Times are median milliseconds on one thread. "
        "Speedups are for one thread / two threads: medians of paired rounds in the calmest of "
        "twelve attempts. All runtimes run the same random weights and give the same outputs. `of "
        "peak` compares the multiply-adds with nonzero weights in sparse layers with the limit of "
        f"one core ({limits['flops'] / 1e9:.0f} GFLOP/s). Where memory is the limit, it compares "
        f"with one core's read bandwidth ({limits['read_bytes'] / 1e9:.0f} GB/s); weights that fit "
        "in a cache can exceed it. "
        "[benchmarks/README.md](../benchmarks/README.md#goals-that-are-missed) says how this is "
        "measured, and why some networks miss a goal."
    )


def _memory(markdown):
    content = _load("memory")
    if not content:
        return
    columns = list(next(iter(content["results"].values()))["resident_bytes"])
    rows = [
        [
            f"{NETWORKS[name].title}, {result['sparsity']:.0%}",
            *(f"{result['resident_bytes'][column]['after'] / 1e6:.0f} MB" for column in columns),
        ]
        for name, result in content["results"].items()
    ]
    yield markdown(["resident memory of a process", *columns], rows)


def _compile():
    content = _load("compile")
    if not content:
        return
    parts = []
    for name, result in content["results"].items():
        seconds = {c: f"{t['load']:.1f} s" for c, t in result.items() if isinstance(t, dict)}
        imports = result["warm, from a file"]["imports"]
        parts.append(
            f"{NETWORKS[name].title} at {result['sparsity']:.0%} takes {seconds['cold']} on a new "
            f"machine, {seconds[NEW]} if the machine has run other networks, and {seconds['warm']} "
            f"if it has run this one. From an engine file it takes {seconds['warm, from a file']}, "
            f"plus {imports:.1f} s for imports."
        )
    yield f"Time from a Keras model to its first answer: {' '.join(parts)}"


def _crossover():
    content = _load("crossover")
    if not content:
        return
    found = [_inference_plot.crossover(result) for result in content["results"].values()]
    found = [sparsity for sparsity in found if sparsity is not None]
    yield (
        "Depending on the layer, a sparse product starts to beat the fastest dense one (ONNX "
        f"Runtime's or our own) between {min(found):.0%} and {max(found):.0%} zeros:\n\n"
        "![Time of a layer over its sparsity](images/crossover.png)"
    )
