"""Makes the tables of one-shot pruning from `benchmarks/results/one_shot_*.json`."""

import json
import statistics

from benchmarks._common import RESULTS

_NAMES = {
    "reconstruct": "`reconstruct`",
    "sparsegpt": "SparseGPT",
    "wanda": "Wanda",
    "magnitude": "magnitude",
}
# What the name of a method is followed by in the results -> in the tables.
_STATISTICS = {"": "", "relative": ", relative statistics", "statistics": ", new statistics"}
_TRAINED = {
    "cifar_cnn": "Eight 3x3 convolutions on CIFAR-10",
    "cifar_resnet": "ResNet-20 on CIFAR-10",
    "review_transformer": "A transformer encoder on movie reviews",
    "mobilenet_v1": "MobileNetV1 of the [results](results.md) on CIFAR-10",
    "mobilenet_v2": "MobileNetV2 of the [results](results.md) on CIFAR-10",
    "inception_v3": "InceptionV3 of the [results](results.md) on photos of clothing",
}


def make(markdown):
    """Returns the Markdown of all tables that have results."""
    parts = [_ds_cnn(markdown), _spread(markdown, "The same network", _read("spread"))]
    found = {}
    for name in ("cifar", "reviews", "images"):
        found |= _read(name)
    networks = [name for name in _TRAINED if len(found.get(name, {})) > 2]
    parts += [_trained(markdown, name, found[name]) for name in networks]
    if "mobilenet_v1 spread" in found:
        parts.append(_spread(markdown, "MobileNetV1", found["mobilenet_v1 spread"]))
    if "mobilenet_v1 trained" in found:
        parts.append(_retrained(markdown, found["mobilenet_v1 trained"]))
    if "fine-tuned" in found:
        parts.append(_fine_tuned(markdown, found["fine-tuned"]))
    parts += [_digits(markdown), _cost()]
    return "\n\n".join(part for part in parts if part)


def _read(name):
    path = RESULTS / f"one_shot_{name}.json"
    return json.loads(path.read_text())["results"] if path.exists() else {}


def _percent(value):
    return f"{value:.1%}".replace("%", " %")


def _target(name):
    return name if ":" in name or name.startswith("(") else _percent(float(name)).replace(".0", "")


def _ds_cnn(markdown):
    results = _read("ds_cnn")
    dense = {key: results[key]["test"] for key in ("dense", "dense + statistics")}
    targets = {key: value for key, value in results.items() if key not in dense}
    methods = dict.fromkeys(m for draws in targets.values() for d in draws.values() for m in d)
    rows = [["dense", *[_percent(dense["dense"])] * len(targets), ""]]
    rows.append(
        ["dense, new statistics", *[_percent(dense["dense + statistics"])] * len(targets), ""]
    )
    for method in sorted(methods, key=_order):
        runs = {
            t: [d[method] for d in draws.values() if method in d] for t, draws in targets.items()
        }
        cells = [_mean(own, "test") for own in runs.values()]
        all_runs = [run for own in runs.values() for run in own]
        seconds = [run["cpu_seconds"] for run in all_runs if "cpu_seconds" in run]
        rows.append(
            [_label(method), *cells, f"{statistics.median(seconds):.0f}" if seconds else ""]
        )
    header = ["test accuracy", *map(_target, targets), "seconds of one core"]
    draws = max(len(draws) for draws in targets.values())
    which = f"the mean of {draws} draws of clips" if draws > 1 else "one draw of clips"
    return (
        "Arm's DS-CNN-L with Arm's weights, pruned on 512 unlabeled clips. The 2,337 test clips "
        "are by other speakers (one standard error: 0.6 points). The rows of `reconstruct` show "
        f"{which}:\n\n{markdown(header, rows)}"
    )


def _order(method):
    """The key that sorts methods: by what happens to the statistics."""
    return list(_STATISTICS).index(method.partition(" + ")[2])


def _label(method, has_statistics=True):
    name, _, more = method.partition(" + ")
    return _NAMES[name] + (_STATISTICS[more] if has_statistics else "")


def _spread(markdown, network, results):
    if not results:
        return ""
    method = "reconstruct"
    names = {
        "uniform": "uniform",
        "first dense": "first layer dense",
        "erk": '`"erk"`',
        "global": '`"global"`',
        "budget": '`"sensitivity"`',
    }
    rows = [
        [_target(zeros)]
        + [_mean([draw[method] for draw in ways[way].values()], "test") for way in names]
        for zeros, ways in sorted(results.items())
    ]
    table = markdown(["zeros", *names.values()], rows)
    return (
        f"{network}, with the same number of zeros in all weights together, by `reconstruct`:"
        f"\n\n{table}"
    )


def _digits(markdown):
    seeds = list(_read("digits").values())
    if not seeds:
        return ""
    counts = [key for key in seeds[0]["0.9"] if key.endswith("examples")]
    rows = [
        [_target(sparsity), *(_mean([seed[sparsity][n] for seed in seeds], "test") for n in counts)]
        for sparsity in ("0.8", "0.9", "0.95")
    ]
    epochs = [key for key in seeds[0] if key.endswith("epochs")]
    tuned = [
        [name, *(_mean([seed[key][name] for seed in seeds], "test") for key in epochs)]
        for name in ("one shot, KeepZeros", "gradual")
    ]
    dense = _mean([seed["dense"] for seed in seeds], "test")
    return (
        f"A small network on scikit-learn's digits (dense {dense}), the mean of {len(seeds)} "
        "seeds, by `reconstruct`. How many examples it needs:\n\n"
        f"{markdown(['zeros', *counts], rows)}\n\n"
        "And at 90 % zeros, fine-tuned with labels after one-shot pruning, or pruned gradually for "
        f"as many epochs:\n\n{markdown(['test accuracy', *map(_counted, epochs)], tuned)}"
    )


def _counted(key):
    return "1 epoch" if key == "1 epochs" else key


def _mean(runs, part):
    return _percent(statistics.mean(run[part] for run in runs)) if runs else ""


def _trained(markdown, name, results):
    targets = [key for key in results if not key.startswith("dense")]
    methods = dict.fromkeys(m for key in targets for m in results[key])
    rows = []
    has_statistics = name != "review_transformer"
    for method in sorted(methods, key=_order):
        if not has_statistics and " + " in method:
            continue
        cells = [
            _percent(results[key][method]["test"]) if method in results[key] else ""
            for key in targets
        ]
        rows.append([_label(method, has_statistics), *cells])
    header = ["test accuracy", *(_block(key) for key in targets)]
    dense = _percent(results["dense"]["test"])
    more = ""
    if has_statistics:
        more = f"; {_percent(results['dense + statistics']['test'])} with new statistics"
    return f"{_TRAINED[name]} (dense {dense}{more}):\n\n{markdown(header, rows)}"


def _block(key):
    if not key.startswith("("):
        return _target(key)
    sparsity, rest = key.strip("()").split(",", 1)
    height, width = rest.strip(" ()").split(",")
    return f"{_target(sparsity)}, blocks {height.strip()}x{width.strip()}"


def _retrained(markdown, results):
    names = {"uniform": "uniform", "sensitivity": '`"sensitivity"`'}
    rows = [
        [_target(zeros), *(_percent(own[name]["test"]) if name in own else "" for name in names)]
        for zeros, own in results.items()
    ]
    return (
        "MobileNetV1, not pruned in one shot but by magnitude during 4 epochs of training, as in "
        "the [results](results.md), with uniform sparsity and with the sparsities that "
        f'`"sensitivity"` gives:\n\n{markdown(["zeros", *names.values()], rows)}'
    )


def _fine_tuned(markdown, results):
    names = ("one shot, KeepZeros", "gradual")
    rows = [
        [name, *(_percent(own[name]["test"]) if name in own else "" for own in results.values())]
        for name in names
    ]
    header = ["test accuracy at 90 %", *map(_counted, results)]
    return (
        "The network of eight convolutions, fine-tuned with labels: either with `KeepZeros` after "
        "one-shot pruning, or by gradual pruning of the dense weights:\n\n"
        f"{markdown(header, rows)}"
    )


def _cost():
    results, parts = _read("cost"), []
    if "sparsegpt_4096" in results:
        own = results["sparsegpt_4096"]
        parts.append(f"SparseGPT takes {own['seconds']:.1f} s for one 4096x4096 layer")
    if "mobilenet" in results:
        own = results["mobilenet"]
        parts.append(
            f"`reconstruct` takes {own['seconds']:.0f} s for MobileNetV1 224 on 512 images, and "
            f"{own['bytes'] / 1e9:.1f} GB of memory in addition to the model"
        )
    return f"On two cores: {'; '.join(parts)}." if parts else ""
