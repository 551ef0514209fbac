"""`keras-trim prune`: one-shot pruning of a model file."""

import pathlib
from typing import Annotated

import typer

from keras_trim_cli import examples, files, models, options, streams, summary, text
from keras_trim_cli.errors import CommandError


def prune(
    model: options.Model,
    output: options.Output,
    sparsity: Annotated[
        float | None,
        typer.Option(
            "--sparsity", "-s", help="Zeros among the weights of each kernel: 0.8 is 80 %."
        ),
    ] = None,
    block: Annotated[
        str | None,
        typer.Option("--block", metavar="IxO", help="Prune blocks, such as 4x4 or 1x16."),
    ] = None,
    pooling: Annotated[
        str, typer.Option("--pooling", help="How magnitudes in a block are pooled: AVG or MAX.")
    ] = "AVG",
    pattern: Annotated[
        str | None,
        typer.Option("--pattern", metavar="N:M", help="Keep N of every M weights, such as 2:4."),
    ] = None,
    calibration: options.MaybeCalibration = None,
    num_examples: options.Examples = 512,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="reconstruct (the default with --calibration), sparsegpt, wanda or magnitude.",
        ),
    ] = None,
    distribution: Annotated[
        str, typer.Option("--distribution", help="uniform, erk or global.")
    ] = "uniform",
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="KIND=N",
            help="zeros=0.9 or bytes=200000, kept at the least damage that --sensitivity tells.",
        ),
    ] = None,
    sensitivity: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--sensitivity", metavar="FILE", help="What `keras-trim sensitivity -o` wrote."
        ),
    ] = None,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    no_compile: options.NoCompile = False,
    force: options.Force = False,
    json: options.Json = False,
):
    """Set the smallest weights of a model to zero, without training.

    Kernels and embedding tables are pruned; depthwise kernels, biases and normalisation stay.

    With --calibration, a few hundred examples without labels, each layer is made to give what it
    gave before, and most of the accuracy stays.

    \b
    Examples:
      keras-trim prune model.keras pruned.keras --sparsity 0.8
      keras-trim prune model.keras pruned.ktrim --sparsity 0.9 --block 4x4
      keras-trim prune model.keras pruned.keras --pattern 2:4
      keras-trim prune model.keras pruned.keras --sparsity 0.75 --calibration x.npy
      keras-trim prune model.keras pruned.keras -c x.npy --budget zeros=0.9 --sensitivity s.json
    """
    if (budget is None) != (sensitivity is None):
        raise typer.BadParameter("--budget and --sensitivity go together")
    if budget is not None and (sparsity is not None or pattern is not None):
        raise typer.BadParameter("--budget says how many weights are zero: drop the others")
    if sparsity is None and pattern is None and budget is None:
        raise typer.BadParameter("give --sparsity, or --pattern")
    if sparsity is not None and not 0 <= sparsity < 1:
        hint = f"; {sparsity:g} % is {sparsity / 100:g}" if 1 < sparsity < 100 else ""
        raise typer.BadParameter(f"--sparsity must be at least 0 and below 1{hint}")
    if pattern is not None and block is not None:
        raise typer.BadParameter("give either --block or --pattern: a weight has one pattern")
    if pattern is not None and sparsity is not None:
        raise typer.BadParameter("--pattern alone says how many weights are zero: drop --sparsity")
    if pooling.upper() not in ("AVG", "MAX"):
        raise typer.BadParameter("--pooling must be AVG or MAX")
    block_size = _pair(block, "x", "--block") if block else (1, 1)
    kept_of = _pair(pattern, ":", "--pattern") if pattern else None
    if min(block_size) < 1:
        raise typer.BadParameter("--block must be two integers of at least 1, such as 4x4")
    if kept_of and not 0 < kept_of[0] < kept_of[1] <= 127:
        raise typer.BadParameter("--pattern N:M needs 0 < N < M <= 127, such as 2:4")
    allowed = _budget(budget) if budget else None
    models.check_saved_format(output)
    files.check_output(output, force)

    data = None if calibration is None else examples.read(calibration, num_examples)
    with streams.silenced():
        loaded = models.load(model, imports, compile=not no_compile)
        import keras_trim

        before = summary.summarize(loaded, model)
        try:
            if allowed:
                read = keras_trim.Sensitivity.load(sensitivity)
                distribution = keras_trim.budget(read, **allowed)
            keras_trim.prune(
                loaded,
                sparsity,
                block_size=block_size,
                block_pooling_type=pooling.upper(),
                sparsity_m_by_n=(kept_of[1] - kept_of[0], kept_of[1]) if kept_of else None,
                calibration_data=data,
                method=method,
                distribution=distribution,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CommandError(f"cannot prune {model}: {error}") from error
        after = summary.summarize(loaded, output)
        models.save(loaded, output)
    sizes = [path.stat().st_size for path in (model, output)]
    if json:
        streams.print_json(
            {
                "file": str(output),
                "bytes": {"before": sizes[0], "after": sizes[1]},
                "before": summary.count(before.weights),
                "after": summary.count(after.weights),
                "pruned": summary.count(after.prunable),
            }
        )
        return
    total, pruned = summary.count(after.weights), summary.count(after.prunable)
    streams.console().print(
        f"{output}: {text.percent(pruned['sparsity'])} of the {pruned['parameters']:,} prunable "
        f"weights are zero, {text.percent(total['sparsity'])} of all {total['parameters']:,}; "
        f"{text.size(sizes[1])}",
        soft_wrap=True,
    )


def _budget(value):
    kind, _, number = value.partition("=")
    try:
        if kind in ("zeros", "bytes"):
            return {kind: float(number)}
    except ValueError:
        pass
    raise typer.BadParameter(f"--budget must be like zeros=0.9 or bytes=200000, not {value!r}")


def _pair(value, separator, option):
    first, found, second = value.partition(separator)
    if not (found and first.isdecimal() and second.isdecimal()):
        raise typer.BadParameter(f"{option} must be like 2{separator}4, not {value!r}")
    return int(first), int(second)
