"""The README's small table: accuracy, size and speed, each next to an alternative."""

import json

from benchmarks._common import RESULTS

_DENSE = ("LiteRT", "ONNX Runtime")


def make():
    rows = [_accuracy(), _size(), *map(_speed, ("mobilenet_v1", "resnet50")), _training()]
    lines = [["", "keras-trim", "the alternative"], ["---"] * 3, *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{_machines()}"


def _load(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def _accuracy():
    results = _load("accuracy")["results"]
    mine, peer, dense = (
        f"{100 * result['mean_accuracy']:.2f} ± {100 * result['std_accuracy']:.2f} %"
        for result in (
            results["0.8"]["keras-trim"],
            results["0.8"]["TFMOT"],
            results["dense"]["dense"],
        )
    )
    return [
        "Accuracy: MNIST CNN, 80 % zeros, 10 seeds",
        f"**{mine}**",
        f"{peer} with TFMOT; {dense} dense",
    ]


def _size():
    result = _load("storage_sizes")["results"]["ResNet50"]["0.9"]
    dense = result["weights_bytes"]
    return [
        "File size: ResNet50, 90 % zeros",
        f"**{_megabytes(dense / result['factor'])}**",
        f"{_megabytes(result['gzip_bytes'])} as `.h5` with gzip -9; "
        f"{_megabytes(dense)} of weights in memory",
    ]


def _megabytes(count):
    return f"{count / 1e6:.1f} MB"


def _speed(name):
    result = _load(f"inference/{name}")["results"]["0.9"]["threads"]["1"]
    runtimes = result["runtimes"]
    fastest = min(_DENSE, key=lambda runtime: runtimes[runtime]["ms"])
    title = {"mobilenet_v1": "MobileNetV1 224", "resnet50": "ResNet50 224"}[name]
    return [
        f"CPU latency: {title}, 90 % zeros, one thread",
        f"**{runtimes['keras-trim']['ms']:.1f} ms**",
        f"{runtimes[fastest]['ms']:.1f} ms with {fastest}; "
        f"{runtimes['DeepSparse']['ms']:.1f} ms with DeepSparse",
    ]


def _training():
    results = _load("mobilenet")["results"]
    slowdowns = [results[backend]["ratio"] - 1 for backend in ("jax", "tensorflow", "torch")]
    return [
        "Training step of MobileNetV1, compared with a dense one",
        f"**{min(slowdowns):+.1%} to {max(slowdowns):+.1%}**",
        f"{results['TFMOT']['ratio'] - 1:+.1%} with TFMOT",
    ]


def _machines():
    cpus = sorted({_load(name)["cpu"] for name in ("inference/mobilenet_v1", "mobilenet")})
    return (
        f"Latency and training were measured on {' and '.join(cpus)}, 2 cores of a shared virtual "
        "machine. The accuracy row uses a trained network. The size and latency rows use random "
        "weights, pruned by magnitude."
    )
