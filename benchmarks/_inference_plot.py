"""Plots time over sparsity from a results file."""

import json


def draw(path, image):
    """Draws one panel per shape: the engine's sparse and dense products, and ONNX Runtime's.

    Args:
        path: `pathlib.Path` of `crossover.json`.
        image: `pathlib.Path` of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    results = json.loads(path.read_text())["results"]
    columns = 4
    lines = -(-len(results) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(13, 3 * lines), squeeze=False)
    for axis, (title, result) in zip(axes.flat, results.items(), strict=False):
        x = [100 * sparsity for sparsity in result["sparsities"]]
        axis.plot(x, result["sparse"], marker="o", markersize=3, label="keras-trim, sparse")
        axis.plot(x, result["dense"], label="keras-trim, dense")
        axis.axhline(result["ONNX Runtime"], color="gray", ls="--", label="ONNX Runtime, dense")
        found = crossover(result)
        if found is not None:
            axis.axvline(100 * found, color="gray", lw=0.5)
            title = f"{title}: {found:.0%}"
        axis.set(title=title, yscale="log", xlabel="zeros, %", ylabel="ms")
        axis.title.set_fontsize(10)
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(ticker.NullFormatter())
    for axis in axes.flat[len(results) :]:
        axis.axis("off")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower right", bbox_to_anchor=(0.97, 0.12))
    figure.tight_layout()
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, dpi=90)
    print(f"wrote {image}", flush=True)


def crossover(result):
    """Returns the sparsity from which the sparse product beats the fastest dense one, or `None`.

    Args:
        result: Dict, as returned by `_inference_kernels.time_product`.
    """
    dense = [min(ours, result["ONNX Runtime"]) for ours in result["dense"]]
    lead = [d / s for d, s in zip(dense, result["sparse"], strict=True)]
    if lead[-1] < 1:
        return None
    # Start from the sparse end, so that a stray point near the crossover does not count.
    last = next((i for i in reversed(range(len(lead))) if lead[i] < 1), None)
    if last is None:
        return result["sparsities"][0]
    x, y = result["sparsities"][last : last + 2], lead[last : last + 2]
    return x[0] + (x[1] - x[0]) * (1 - y[0]) / (y[1] - y[0])
