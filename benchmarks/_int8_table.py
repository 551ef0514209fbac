"""Makes the table of dense int8 next to pruned float32 from the results file."""

import json

from benchmarks._common import RESULTS
from benchmarks._inference_models import NETWORKS

_RUNTIMES = ("LiteRT", "ONNX Runtime", "OpenVINO")
_OURS = "keras-trim"


def make(markdown):
    """Returns the table and the paragraph below it.

    Args:
        markdown: Function `(header, rows) -> string`.
    """
    path = RESULTS / "inference" / "int8.json"
    if not path.exists():
        return "Not measured yet: `python -m benchmarks.int8`."
    content = json.loads(path.read_text())
    rows = []
    for name, by_threads in content["results"].items():
        for case in by_threads["1"]["speedup_over_int8"]:
            rows.append(_row(name, case, by_threads))
    header = ["network, one example", "engine", "ms", "fastest dense float32, ms"]
    header += ["fastest dense int8, ms", "engine's speedup over int8"]
    versions = {
        package: version
        for packages in content["versions"].values()
        for package, version in packages.items()
        if package in ("ai-edge-litert", "onnxruntime", "openvino", "nncf")
    }
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    return (
        f"{markdown(header, rows)}\n\nMeasured on {content['cpu']} on {content['date'][:10]}, "
        f"with {listed}. Times are milliseconds on one thread. Speedups over the fastest int8 "
        "runtime are for one thread / two threads, medians of paired rounds. The weights are "
        "random, so the table says nothing about what pruning or int8 costs in accuracy."
    )


def _row(name, case, by_threads):
    one = by_threads["1"]["ms"]
    dense = min(_RUNTIMES, key=one.get)
    int8 = by_threads["1"]["fastest_int8"]
    ratios = " / ".join(f"{r['speedup_over_int8'][case]:.2f}x" for r in by_threads.values())
    return [
        NETWORKS[name].title,
        f"{case.removeprefix(f'{_OURS}, ').replace('.0%', '%')} zeros",
        f"{one[case]:.2f}",
        f"{one[dense]:.2f} ({dense})",
        f"{one[int8]:.2f} ({int8.removesuffix(', int8')})",
        ratios,
    ]
