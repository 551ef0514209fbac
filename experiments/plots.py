"""Plots a model's score against its sparsity and against its latency."""


def draw(results, path):
    """Writes a PNG with the score over zeros and, if there are times, over milliseconds.

    Writes nothing if no sparse row has been run.

    Args:
        results: `experiments.tables.Results`.
        path: `pathlib.Path` of the image.
    """
    goal = results.goal
    numbers = [target for target in goal.targets if not isinstance(target, str)]
    if results.scores(None) is None or not any(map(results.scores, numbers)):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = 2 if results.time(None) else 1
    figure, axes = pyplot.subplots(1, panels, figsize=(4.5 * panels, 3.4), squeeze=False)
    left = axes[0, 0]
    for library, color in (("keras-trim", "tab:blue"), ("TFMOT", "tab:orange")):
        _curve(left, results, numbers, library, color)
        _curve(left, results, ["2:4"], library, color)
    dense, error, _ = results.scores(None)
    left.axhspan(dense - (error or 0), dense + (error or 0), color="gray", alpha=0.2)
    left.axhline(dense, color="gray", ls="--", label="dense, same number of steps")
    left.set(xlabel="zeros among all weights, %", ylabel=_score(goal), title=goal.title)
    left.legend(fontsize=8)
    if panels == 2:
        _times(axes[0, 1], results)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    print(f"wrote {path}")


def _curve(axis, results, targets, library, color):
    """Draws points with error bars, connected unless they are for an N:M pattern."""
    found = [(target, results.scores(target, library)) for target in targets]
    found = [(target, score) for target, score in found if score]
    if not found:
        return
    n_m = isinstance(found[0][0], str)
    axis.errorbar(
        [results.zeros(target, library) for target, _ in found],
        [mean for _, (mean, _, _) in found],
        yerr=[error or 0.0 for _, (_, error, _) in found],
        color=color,
        marker="s" if n_m else "o",
        markersize=4,
        capsize=3,
        ls="" if n_m else "-",
        label=f"{library}, 2:4" if n_m else library,
    )


def _times(axis, results):
    """Draws each target's score over the engine's time, and the dense model in all runtimes."""
    axis.set(xlabel="milliseconds, batch 1, one thread", ylabel=_score(results.goal))
    for target in results.goal.targets:
        time, score = results.time(target), results.scores(target)
        if not time or not score:
            continue
        x, y = time["milliseconds"]["keras-trim"], score[0]
        axis.errorbar(x, y, yerr=score[1] or 0.0, color="tab:blue", marker="o", capsize=3)
        label = target if isinstance(target, str) else f"{100 * target:g} %"
        axis.annotate(label, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    time, score = results.time(None), results.scores(None)
    names = {"keras-trim": "engine", "litert": "LiteRT", "onnxruntime": "ONNX Runtime"}
    for (runtime, name), marker in zip(names.items(), "ov^", strict=True):
        x = time["milliseconds"][runtime]
        axis.plot(x, score[0], color="gray", marker=marker, ls="", label=f"{name}, dense")
    axis.legend(fontsize=8)


def _score(goal):
    return "accuracy, %" if goal.score == "accuracy" else goal.score
