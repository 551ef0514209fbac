"""Measures how fast a model runs in Keras, in the engine, and in other installed runtimes."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_trim import model_inputs, timing
from keras_trim.arguments import check_model, described, positive_integer, takes_named
from keras_trim.batches import describe
from keras_trim.processor import count_cores, processor_name
from keras_trim.progress import progress
from keras_trim.report import sparsity_report
from keras_trim.tables import PrintedTable, Shown

_FREE = 32  # the value assumed for free sizes
_ALIKE = 1.1  # a smaller speedup than this may be chance
_FEW_ZEROS, _MANY_ZEROS = 0.3, 0.7


@dataclasses.dataclass(frozen=True)
class SpeedRow:
    """The speed of one runtime.

    Args:
        runtime: String: `"model.predict"`, `"model.predict_on_batch"` (compiled, on JAX and
            TensorFlow), `"keras-trim"` (the engine), `"litert"` or `"onnxruntime"`.
        milliseconds: Float. The median time of a call.
        largest_difference: Float. The largest difference from the outputs of `model.predict`,
            relative to the largest of these.
    """

    runtime: str
    milliseconds: float
    largest_difference: float


@dataclasses.dataclass(frozen=True, repr=False)
class SpeedReport(Shown):
    """The speed of a model. It prints as a table and a sentence of advice.

    Args:
        rows: List of `SpeedRow`.
        left_out: Dict: runtime -> why it could not be timed.
        sparsity: Float. Zeros over size of the weights that can be pruned.
        num_bytes: Integer. Bytes of the weights in memory.
        batch_size: Integer. Examples per call.
        num_threads: Integer. Threads of the engine and of other runtimes. Keras's backends choose
            their own numbers.
        processor: String.
        backend: String. Keras's backend.
        layers: The engine's `EngineSummary`, or `None`.
    """

    rows: list[SpeedRow]
    left_out: dict[str, str]
    sparsity: float
    num_bytes: int
    batch_size: int
    num_threads: int
    processor: str
    backend: str
    layers: Any = None

    def __getitem__(self, runtime: str) -> SpeedRow:
        """Returns the `SpeedRow` of a runtime.

        Raises:
            KeyError: if the runtime was not timed.
        """
        for row in self.rows:
            if row.runtime == runtime:
                return row
        raise KeyError(runtime)

    @property
    def advice(self) -> str:
        """String: advice in one sentence."""
        times = {row.runtime: row.milliseconds for row in self.rows}
        others = {name: ms for name, ms in times.items() if name != timing.ENGINE}
        if timing.ENGINE in self.left_out:
            best = min(others, key=others.get)
            return f"Run it in {best}: the engine does not run this model, for the reason above."
        if timing.ENGINE not in times or not others:
            return 'To time the engine, too: pip install "keras-trim[inference]".'
        engine, (best, fastest) = times[timing.ENGINE], min(others.items(), key=lambda o: o[1])
        if engine * _ALIKE < fastest:
            return (
                f"Deploy with the engine, {fastest / engine:.1f} times as fast here as {best}, the "
                "fastest of the others: `keras_trim.inference.Engine(model).save('model.engine')`."
            )
        if self.sparsity < _MANY_ZEROS:
            few = "hardly any" if self.sparsity < _FEW_ZEROS else f"only {self.sparsity:.0%}"
            return (
                f"The engine gains by skipping zeros, of which this model has {few}: prune to 80 % "
                f"or more, or run the model in {best}, which is about as fast or faster."
            )
        in_keras = getattr(self.layers, "keras_layers", [])
        if in_keras:
            return (
                f"Run it in {best}: the engine has no kernel for {', '.join(in_keras[:3])}"
                f"{' ...' if in_keras[3:] else ''}, and these layers run in Keras."
            )
        return (
            f"Run it in {best}: {engine / fastest:.1f} times as fast here as the engine, though it "
            "multiplies by the zeros as well; a smaller dense network may serve you better."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as values that JSON can hold."""
        names = ("sparsity", "num_bytes", "batch_size", "num_threads", "processor", "backend")
        return {
            **{name: getattr(self, name) for name in names},
            "milliseconds": {row.runtime: row.milliseconds for row in self.rows},
            "largest_difference": {row.runtime: row.largest_difference for row in self.rows},
            "left_out": dict(self.left_out),
            "advice": self.advice,
        }

    def _table(self) -> PrintedTable:
        slowest = self.rows[0].milliseconds
        rows = [
            [
                row.runtime,
                f"{row.milliseconds:.3f}",
                f"{slowest / row.milliseconds:.2f}",
                f"{row.largest_difference:.1e}",
            ]
            for row in self.rows
        ]
        columns = ["runtime", ">ms", f">times as fast as {self.rows[0].runtime}", ">difference"]
        threads = f"{self.num_threads} thread{'s' * (self.num_threads != 1)}"
        examples = f"{self.batch_size} example{'s' * (self.batch_size != 1)}"
        lines = [f"{name} left out: {why}" for name, why in self.left_out.items()]
        lines += [
            f"{examples} a call, {threads} (Keras on {self.backend}: as many as it takes); "
            f"{self.sparsity:.1%} zeros, {self.num_bytes:,} bytes of weights; "
            f"{self.processor}",
            self.advice,
        ]
        return PrintedTable(columns, rows, lines)


@takes_named
def bench(
    model: keras.Model,
    x: Any = None,
    *,
    batch_size: int = 1,
    num_threads: int | None = None,
    runtimes: Sequence[str] | None = None,
    seconds: float = 1.0,
    verbose: str | bool = "auto",
) -> SpeedReport:
    """Times a model in Keras, in the engine and in other runtimes, in turns and on the same inputs.

    Args:
        model: Built Keras model.
        x: Inputs of a call: arrays, whose examples all run at once. Default: random inputs.
        batch_size: Integer. Examples per call, if `x` is not given.
        num_threads: Integer. Threads of the engine and of other runtimes. Default: the processor's
            cores. (Keras's backends take the number they are given at startup.)
        runtimes: Sequence of `"litert"` and `"onnxruntime"`: what to time besides Keras and the
            engine. Default: those that are installed; `()` for none. Making files for them takes a
            minute.
        seconds: Float. How long to time each runtime.
        verbose: `"auto"` (reports progress on a terminal or in a notebook if it takes longer than
            two seconds), `True` or `False`.

    Returns:
        `SpeedReport`. `print` it for a table; `.rows` has the data.

    Raises:
        ValueError: if the model is not built, if its inputs are unknown and `x` is not given, if a
            runtime is unknown, if `x` is empty, if `batch_size` or `num_threads` is not positive,
            or if `seconds` is no finite number of at least 0.

    Example:

    ```python
    print(keras_trim.bench(model))
    ```
    """
    check_model(model)
    batch_size = positive_integer(batch_size, "batch_size")
    num_threads = positive_integer(
        count_cores() if num_threads is None else num_threads, "num_threads"
    )
    if not isinstance(seconds, numbers.Real) or not 0 <= seconds < math.inf:
        raise ValueError(
            "`seconds` must be a number of at least 0, the time for each runtime. "
            f"Received: seconds={described(seconds)}"
        )
    names = _names(runtimes)
    inputs = _random(model, batch_size) if x is None else _as_taken(model, x)
    if not timing.num_examples(inputs):
        raise ValueError(f"`x` must hold at least one example. Received: {describe(x)}")
    runs, differences, left_out, reference = {}, {}, {}, None
    with progress("timing", len(names) + 1, verbose) as work:
        for name in names:
            work.description = f"timing: preparing {name}"
            try:
                run = timing.runner(name, model, num_threads)
                outputs = run(inputs)
                reference = outputs if reference is None else reference
                differences[name] = _difference(reference, outputs)
                runs[name] = run
            except Exception as error:  # runtimes may raise anything
                if name == timing.PREDICT:
                    raise  # the inputs do not match the model
                left_out[name] = _why(error)
            work.advance()
        work.description = "timing: taking turns"
        times = timing.time_in_turns(runs, inputs, seconds)
    rows = [SpeedRow(name, time * 1e3, differences[name]) for name, time in times.items()]
    engine = getattr(runs.get(timing.ENGINE), "engine", None)
    return SpeedReport(
        rows,
        left_out,
        sparsity_report(model).sparsity if model.weights else 0.0,
        sum(keras.ops.convert_to_numpy(variable.value).nbytes for variable in model.weights),
        timing.num_examples(inputs),
        num_threads,
        processor_name(),
        keras.backend.backend(),
        engine and engine.summary(inputs),
    )


def _names(runtimes):
    """Lists the runtimes to time, Keras first."""
    there = timing.installed()
    if runtimes is None:
        return there
    if isinstance(runtimes, str) or not set(runtimes) <= set(timing.OTHERS):
        raise ValueError(
            f"`runtimes` must be a sequence of {', '.join(map(repr, timing.OTHERS))}; Keras and "
            f"the engine are always timed. Received: runtimes={described(runtimes)}"
        )
    return [name for name in there if name not in timing.OTHERS] + list(runtimes)


def _random(model, batch_size):
    """Returns random inputs in the structure that the model takes."""
    from keras_trim.exporters.cases import input_structure, refuse_text
    from keras_trim.exporters.samples import random_inputs

    if not getattr(model, "inputs", None):
        raise ValueError(
            "The shapes of the model's inputs are not known: pass `x`, the inputs of a call. "
            f"Received: x=None, model={model.name}"
        )
    refuse_text(model.inputs)
    shapes = [[_FREE if size is None else size for size in t.shape] for t in model.inputs]
    for shape, tensor in zip(shapes, model.inputs, strict=True):
        shape[0] = tensor.shape[0] or batch_size
    return keras.tree.pack_sequence_as(input_structure(model), random_inputs(model, shapes))


def _as_taken(model, x):
    """Returns the inputs of a call as arrays, in the structure and dtypes that the model takes."""
    if not getattr(model, "inputs", None):
        has_arrays = all(hasattr(array, "shape") for array in keras.tree.flatten(x))
        return x if has_arrays else np.asarray(x)
    if any(tensor.dtype == "string" for tensor in model.inputs):
        return x
    structure, specs = model_inputs.signature(model)
    arrays = model_inputs.flatten(x, structure, specs)
    return keras.tree.pack_sequence_as(structure, arrays)


def _why(error):
    """Returns the reason for which a runtime cannot run a model."""
    if isinstance(error, (ImportError, ValueError)):  # ours name the cure
        return " ".join(str(error).split())
    from keras_trim.exporters.reasons import reason

    return f"{type(error).__name__}: {reason(error)}"


def _difference(reference, outputs):
    """Returns the largest difference of outputs, relative to the largest reference value."""
    differences = [
        np.abs(np.asarray(a, "float64") - np.asarray(b, "float64")).max(initial=0.0)
        / max(float(np.abs(np.asarray(a, "float64")).max(initial=0.0)), 1e-30)
        for a, b in zip(reference, outputs, strict=True)
    ]
    return float(np.max(differences))  # NaN if any is, unlike Python's `max`
