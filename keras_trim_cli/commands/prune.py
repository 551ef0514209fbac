"""`keras-trim prune`: one-shot pruning of a model file."""

import pathlib
from typing import Annotated

import typer

from keras_trim_cli import examples, files, models, options, streams, summary, text
from keras_trim_cli.errors import CommandError
from keras_trim_cli.prune_request import PruneRequest


def _fraction(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        raise typer.BadParameter(f"{given!r} is no number: 80 % is 0.8") from None


Sparsity = Annotated[
    float | None,
    typer.Option(
        "--sparsity",
        "-s",
        parser=_fraction,
        metavar="<float>",
        help="Zeros among the weights of each kernel: 0.8 is 80 %.",
    ),
]
Block = Annotated[
    str | None, typer.Option("--block", metavar="IxO", help="Prune blocks, such as 4x4 or 1x16.")
]
Pooling = Annotated[
    str, typer.Option("--pooling", help="How magnitudes in a block are pooled: AVG or MAX.")
]
Pattern = Annotated[
    str | None,
    typer.Option("--pattern", metavar="N:M", help="Keep N of every M weights, such as 2:4."),
]
MaybeMethod = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="reconstruct (the default with --calibration), sparsegpt, wanda or magnitude.",
    ),
]
Distribution = Annotated[
    str,
    typer.Option(
        "--distribution",
        help="uniform, erk, global or sensitivity (with --calibration: more zeros where they hurt "
        "least, which takes about ten times as long).",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="KIND=N",
        help="zeros=0.9, bytes=200000 or milliseconds=5 (the time of the weights' layers in the "
        "engine, measured here), at the least damage that --sensitivity predicts.",
    ),
]
SensitivityFile = Annotated[
    pathlib.Path | None,
    typer.Option("--sensitivity", metavar="FILE", help="File of `keras-trim sensitivity -o`."),
]


def prune(
    model: options.Model,
    output: options.Output,
    sparsity: Sparsity = None,
    block: Block = None,
    pooling: Pooling = "AVG",
    pattern: Pattern = None,
    calibration: options.MaybeCalibration = None,
    num_examples: options.Examples = 512,
    method: MaybeMethod = None,
    distribution: Distribution = "uniform",
    budget: Budget = None,
    sensitivity: SensitivityFile = None,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    no_compile: options.NoCompile = False,
    force: options.Force = False,
    json: options.Json = False,
):
    """Set the smallest weights of a model to zero, without training.

    Prunes kernels and embedding tables, but not depthwise kernels, biases and normalization.

    With --calibration (a few hundred examples without labels), the kept weights are fitted to
    reproduce each layer's outputs, which preserves most of the accuracy.

    \b
    Examples:
      keras-trim prune model.keras pruned.keras --sparsity 0.8
      keras-trim prune model.keras pruned.ktrim --sparsity 0.9 --block 4x4
      keras-trim prune model.keras pruned.keras --pattern 2:4
      keras-trim prune model.keras pruned.keras --sparsity 0.75 --calibration x.npy
      keras-trim prune model.keras pruned.keras --sparsity 0.9 -c x.npy --distribution sensitivity
      keras-trim prune model.keras pruned.keras -c x.npy --budget zeros=0.9 --sensitivity s.json
    """
    request = PruneRequest(
        sparsity, block, pooling, pattern, method, distribution, budget, sensitivity
    )
    request.check_files(calibration)
    models.check_saved_format(output)
    files.check_output(output, force)

    size = model.stat().st_size  # before it is replaced, if OUTPUT is MODEL
    data = None if calibration is None else examples.read(calibration, num_examples)
    with streams.silenced():
        loaded = models.load(model, imports, compile=not no_compile)
        before = summary.summarize(loaded, model)
        try:
            request.prune(loaded, data)
        except (ValueError, KeyError, TypeError) as error:
            raise CommandError(f"cannot prune {model}: {error}") from error
        after = summary.summarize(loaded, output)
        models.save(loaded, output)
        dropped = models.leaves_optimizer_out(loaded, output)
    _print(output, (size, output.stat().st_size), before, after, dropped, json)


def _print(output, sizes, before, after, dropped, as_json):
    """Prints the result.

    Args:
        output: Path of the file that was written.
        sizes: Tuple of the bytes of the model's file and of the output.
        before, after: Summaries of the two models.
        dropped: Boolean. Whether the optimizer's state was left out.
        as_json: Boolean.
    """
    total, pruned = summary.count(after.weights), summary.count(after.prunable)
    if as_json:
        streams.print_json(
            {
                "file": str(output),
                "bytes": {"before": sizes[0], "after": sizes[1]},
                "before": summary.count(before.weights),
                "after": total,
                "pruned": pruned,
                "optimizer_left_out": dropped,
            }
        )
        return
    streams.console().print(
        f"{output}: {text.percent(pruned['sparsity'])} of the {pruned['parameters']:,} prunable "
        f"weights are zero, {text.percent(total['sparsity'])} of all {total['parameters']:,}; "
        f"{text.size(sizes[1])}",
        soft_wrap=True,
    )
    if dropped:
        streams.console().print("the optimizer's state was left out: a .keras file keeps it")
