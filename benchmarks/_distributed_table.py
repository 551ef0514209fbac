"""Makes the table of what pruning costs on several devices, and for a model with many shapes."""

import json
import statistics

from benchmarks._common import RESULTS


def _seconds(value):
    return f"{value:.1f} s"


def _gigabytes(value):
    return f"{value / 1e9:.2f} GB"


_LARGE = {
    "compile_seconds": ("compiling", "≤ 1.15", _seconds),
    "first_step_seconds": ("until the end of the first step", "≤ 1.3", _seconds),
    "peak_bytes": ("peak memory", "≤ 1.05", _gigabytes),
    "array_bytes": ("of that: weights, gradients, momenta, masks", "", _gigabytes),
}
_KINDS = ("dense", "pruned")
_STEPS = {
    "jax, split over 8 devices": "a step on JAX, weights sharded over 8 devices",
    "tensorflow, 2 replicas": "a step on TensorFlow, 2 replicas",
}


def make(markdown, where):
    """Returns the table and a paragraph below it.

    Args:
        markdown: Function `(header, rows) -> string`.
        where: Function: names of result files -> sentence on when and where they were measured.
    """
    steps, large = (
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("distributed_steps", "large_model")
    )
    rows = []
    for key, title in _STEPS.items():
        result = steps["results"][key]
        milliseconds = [
            f"{1000 * median / steps['settings']['block']:.1f} ms"
            for median in (statistics.median(result["seconds_per_block"][kind]) for kind in _KINDS)
        ]
        rows.append([title, *milliseconds, f"{result['pruned_over_dense']:.3f}", "≤ 1.05"])
    for key, (title, goal, show) in _LARGE.items():
        result = large["results"][key]
        values = [show(result[kind]) for kind in _KINDS]
        rows.append([f"large model: {title}", *values, f"{result['pruned_over_dense']:.2f}", goal])
    table = markdown(["", *_KINDS, "pruned over dense", "goal"], rows)
    return (
        f"{table}\n\n{where('distributed_steps', 'large_model')} The devices are virtual ones of "
        "the same processor. The steps train three Dense layers of "
        f"{steps['settings']['width']}, and masks are updated every "
        f"{steps['settings']['frequency']} steps. The large model runs on one device of JAX: "
        f"{large['settings']['weights']} Dense kernels, each of another shape, 120 million weights."
    )
