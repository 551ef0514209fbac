"""`keras-trim bench`: how fast the sparse engine runs a model."""

from typing import Annotated

import typer

from keras_trim_cli import models, options, streams
from keras_trim_cli.errors import CommandError


def bench(
    model: options.Model,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads to run on.")] = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Size of the batch.")] = 1,
    imports: options.Import = [],  # noqa: B006 (typer copies it)
    json: options.Json = False,
):
    """Time a model in the sparse engine on random inputs.

    \b
    Examples:
      keras-trim bench pruned.keras
      keras-trim bench pruned.keras --threads 2 --batch 8
    """
    models.format_of(model)
    with streams.silenced():
        loaded = models.load(model, imports, compile=False)
        from keras_trim.inference import Engine

        with streams.progress("timing"):
            try:
                engine = Engine(loaded, num_threads=threads)
                result = engine.benchmark(_inputs(loaded, batch))
            except ValueError as error:
                raise CommandError(f"cannot run {model}: {error}") from error
    if json:
        streams.print_json({"file": str(model), "threads": threads, "batch": batch, **dict(result)})
    else:
        streams.console().print(f"{engine.summary()}\n{result}", soft_wrap=True)


def _inputs(model, batch):
    """Random inputs of the model's structure; sizes that are free count as 1."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)

    def make(tensor):
        shape = [batch, *(size or 1 for size in tensor.shape[1:])]
        if keras.backend.is_float_dtype(tensor.dtype):
            return random.standard_normal(shape).astype(tensor.dtype)
        return np.zeros(shape, tensor.dtype)

    if not getattr(model, "inputs", None):
        raise CommandError("the model's inputs are not known: give it a keras.Input and save it")
    return keras.tree.map_structure(make, model.input)
