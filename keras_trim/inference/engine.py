"""The engine: reads a model once, then runs it on the CPU and skips zero weights."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_trim.arguments import positive_integer, takes_named
from keras_trim.inference.frontend.inputs import (
    flatten_inputs,
    random_inputs,
    restore_structure,
)
from keras_trim.inference.frontend.prediction import (
    batches_of,
    count_batches,
    is_array,
    progress,
)
from keras_trim.inference.ir import serialization as files
from keras_trim.inference.ir.dtypes import WIDE, as_numpy
from keras_trim.inference.ir.rewrites import rewrite
from keras_trim.inference.lowering.tuner import Tuner, check_tuner
from keras_trim.inference.lowering.tuning_cache import TuningCache
from keras_trim.inference.planner import Planner
from keras_trim.inference.program.listing import ProgramListing, list_program
from keras_trim.inference.runtime.executor import states_kept
from keras_trim.inference.runtime.summary import BenchmarkResult, measure, summarize
from keras_trim.processor import count_cores
from keras_trim.progress import check_verbose

if TYPE_CHECKING:
    import keras

    from keras_trim.inference.runtime.summary import EngineSummary

_FLOAT32 = np.dtype(np.float32)


class Engine:
    """Runs a trained Keras model on the CPU and skips its zeros.

    Any tool may have pruned the model. The engine reads the weights once; later training does not
    change it. It folds batch normalization into weights, and fuses activations, sums and padding
    with the layer before or after them. For each layer it measures several kernels, sparse and
    dense, on this machine and keeps the fastest. A layer without a kernel runs in Keras.

    The engine makes a program for each new input shape, which takes a few seconds. Later processes
    take about one second, because the choice of kernels is cached on disk. The first engine on a
    machine compiles the kernels, which takes about a minute.

    Several Python threads may call an engine at the same time; each call uses `num_threads`
    threads.

    Args:
        model: Keras model, built.
        num_threads: Integer. Threads per call, by default one per core. A network that takes less
            than a millisecond runs on one thread if that measures faster.
        verbose: `"auto"`, `True` or `False`. Whether to report progress on work that takes longer
            than two seconds. `"auto"`: on a terminal and in a notebook.
        tuner: `keras_trim.inference.ForcedTuner`, to choose the kernels yourself. By default the
            engine measures and takes the fastest.

    Raises:
        ValueError: if `model` is not a built Keras model, or `num_threads` is not positive.

    Example:

    ```python
    engine = keras_trim.inference.Engine(model)
    y = engine(x)  # what model.predict(x) returns
    print(engine.summary())
    ```
    """

    verbose: str | bool = "auto"

    @takes_named
    def __init__(
        self,
        model: "keras.Model",
        num_threads: int | None = None,
        verbose: str | bool = "auto",
        tuner: Any = None,
    ) -> None:
        check_verbose(verbose)
        # Imported here because it needs Keras.
        from keras_trim.inference.frontend.optional_inputs import import_with_optional_inputs

        graph, without = import_with_optional_inputs(model)
        self._set_up(rewrite(graph), num_threads, tuner=tuner, verbose=verbose)
        for absent, smaller in without.items():
            self._without[absent] = _remade(
                rewrite(smaller), self.num_threads, None, None, None, tuner, verbose
            )

    @classmethod
    def _of(cls, model, owners):
        """An engine; fills `owners`: name of a node -> its layer."""
        from keras_trim.inference.frontend.importer import import_model

        return _remade(rewrite(import_model(model, owners=owners)), None, None, None)

    def _set_up(
        self, graph, num_threads, source=None, max_bytes=None, without=None, tuner=None,
        verbose="auto",
    ):  # fmt: skip
        if num_threads is None:
            num_threads = count_cores()
        num_threads = positive_integer(num_threads, "num_threads")
        check_tuner(tuner)
        self._graph = graph
        self._without = without or {}  # indices of inputs that are None -> engine for the others
        self._source, self._max_bytes = source, max_bytes  # of a loaded engine
        self.num_threads = num_threads
        self.verbose = verbose
        self._given_tuner = tuner
        self._tuner = tuner or Tuner(TuningCache.of_this_machine())
        self._planner = Planner(graph, num_threads, self._tuner, source, max_bytes)

    def __call__(self, x: Any) -> Any:
        """Runs the model.

        Args:
            x: The inputs as for `model.predict`: an array, batch axis first, or a list or
                dictionary of arrays.

        Returns:
            NumPy arrays of the model's output dtypes, in the structure of its outputs.

        Raises:
            ValueError: if the inputs do not match the model's.
        """
        # A fast path: the checks below would take a tenth of a small network's time.
        if type(x) is np.ndarray and x.dtype is _FLOAT32:
            runner = self._planner.direct.get(x.shape)
            outputs = runner and runner.run_directly(x)
            if outputs:
                return restore_structure(self._graph.output_structure, outputs)
        inputs = self._inputs(x)
        outputs = self._run(inputs)
        self._note_direct(x, inputs)
        return restore_structure(self._graph.output_structure, outputs)

    def __reduce__(self):
        # The copy plans its programs again and starts threads of its own.
        settings = (
            self.num_threads, self._source, self._max_bytes, self._without, self._given_tuner,
            self.verbose,
        )  # fmt: skip
        return _remade, (self._graph, *settings)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{s['name']} {_sizes(s['shape'])}" for s in self._graph.input_specs)
        return (
            f"<Engine of {len(self._graph.nodes)} operations on {inputs}; "
            f"num_threads={self.num_threads}>"
        )

    @takes_named
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        steps: int | None = None,
    ) -> Any:
        """Runs the model on batches of `x`; returns the same as `model.predict`.

        Args:
            x: The inputs as for `model.predict`: arrays; a generator, `tf.data.Dataset`,
                `keras.utils.PyDataset` or PyTorch `DataLoader`, whose targets are ignored; or a
                pandas frame. Without Keras: arrays, or any iterable of batches.
            batch_size: Integer. Examples per run, 32 by default; memory grows with it. Data that
                is already batched keeps its batches.
            verbose: Integer or `"auto"`. Whether to show a progress bar, as for `model.predict`,
                but 0 by default.
            steps: Integer. Maximum number of batches to run; all by default.

        Returns:
            NumPy arrays of the model's output dtypes, in the structure of its outputs.

        Raises:
            ValueError: if the inputs do not match the model's, or there are none.
        """
        batch_size = None if batch_size is None else positive_integer(batch_size, "batch_size")
        steps = None if steps is None else positive_integer(steps, "steps")
        if is_array(x):
            engine, inputs = self._for(self._inputs(x))
            size = batch_size or 32
            starts = range(0, max(len(inputs[0]), 1), size)[:steps]
            batches = ([a[i : i + size] for a in inputs] for i in starts)
            total = len(starts)
        else:
            engine, batches = self, map(self._inputs, batches_of(x, batch_size, steps))
            total = count_batches(x, steps)
        parts = []
        with progress(verbose, total) as advance:
            for batch in batches:
                parts.append(engine._run(batch))
                advance()
        outputs = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        return restore_structure(self._graph.output_structure, outputs)

    def summary(self, x: Any = None) -> "EngineSummary":
        """Reports each layer's kernel and time. Excludes the input checks of a call.

        Stateful layers keep their state.

        Args:
            x: Arrays to measure with; by default one random example.

        Returns:
            `EngineSummary`: `print` it for a table; `.rows` is the data.

        Raises:
            ValueError: if `x` is not given and an input size other than the batch is free.
        """
        inputs = self._example() if x is None else self._inputs(x)
        engine, inputs = self._for(inputs)
        if engine is not self:
            return engine.summary(inputs)
        runner = self._runner(inputs, _are_finite(inputs))
        with runner.execution() as execution, states_kept(self._graph):

            def run():
                execution.set_inputs(inputs)
                execution.run()

            times = measure(run, 0.3)
            profile = execution.profile(repeats=5)
        return summarize(self._graph, runner, times, profile)

    def program(self, x: Any = None) -> ProgramListing:
        """Lists the instructions of the program for inputs of these shapes, for debugging.

        Args:
            x: Arrays, as for a call; by default one random example.

        Returns:
            `ProgramListing`, a list with the `layer`, `instruction` and `operands` of each line;
            `print` it for text.

        Raises:
            ValueError: if `x` is not given and an input size other than the batch is free.
        """
        inputs = self._example() if x is None else self._inputs(x)
        engine, inputs = self._for(inputs)
        runner = engine._runner(inputs, _are_finite(inputs))
        return list_program(runner.program, [node.name for node in engine._graph.nodes])

    def benchmark(self, x: Any = None, seconds: float = 1.0) -> BenchmarkResult:
        """Times whole calls, `engine(x)`, input checks included.

        Stateful layers, such as those with a random generator, keep their state.

        Args:
            x: Arrays to measure with; by default one random example.
            seconds: Float. How long to measure.

        Returns:
            `BenchmarkResult`.

        Raises:
            ValueError: if `x` is not given and an input size other than the batch is free.
        """
        if x is None:
            x = restore_structure(self._graph.input_structure, self._example())
        with states_kept(self._graph):
            times = measure(lambda: self(x), seconds)
        engine, inputs = self._for(self._inputs(x))
        runner = engine._runner(inputs, _are_finite(inputs))
        return BenchmarkResult(times, len(inputs[0]), runner.num_threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the engine, without its choice of kernels.

        The file loads without Keras; it needs only NumPy, Numba and this library.

        Args:
            path: Path that ends in `.engine`.

        Raises:
            ValueError: if a layer runs in Keras (the message names it), an input is optional, a
                key of inputs or outputs is not a string, or the path does not end in `.engine`.
            OSError: if the file cannot be written; an existing file stays unchanged.
        """
        optional = [spec["name"] for spec in self._graph.input_specs if spec.get("optional")]
        if optional:
            raise ValueError(
                "An engine of a model with optional inputs cannot be saved. "
                f"Received: a model with the optional inputs {optional}"
            )
        files.save_graph(self._graph, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        num_threads: int | None = None,
        max_bytes: int | None = None,
        verbose: str | bool = "auto",
        tuner: Any = None,
    ) -> "Engine":
        """Loads an engine. Safe for untrusted files.

        Whether the operations fit together depends on the input shapes, so a call of a loaded
        engine may raise `FormatError`, too.

        Args:
            path: Path of a file that `save` wrote.
            num_threads: As for `Engine`.
            max_bytes: Integer. Limits both the decoded size of the file and the memory of a run.
                By default 1 GiB, or, if more, 1000 times the size of the file, or of the weights
                and inputs.
            verbose: As for `Engine`.
            tuner: As for `Engine`.

        Raises:
            keras_trim.storage.FormatError: if the file is damaged or was not written by `save`.
            OSError: if the file does not exist or cannot be read.
        """
        engine = cls.__new__(cls)
        check_verbose(verbose)
        graph = files.load_graph(path, max_bytes)
        engine._set_up(graph, num_threads, path, max_bytes, tuner=tuner, verbose=verbose)
        return engine

    def _inputs(self, x):
        return flatten_inputs(x, self._graph.input_structure, self._graph.input_specs)

    def _example(self):
        shapes = [(spec["shape"][0] or 1, *spec["shape"][1:]) for spec in self._graph.input_specs]
        if any(size is None for shape in shapes for size in shape):
            raise ValueError(
                "The model leaves the size of its inputs free, so pass `x`, an example to measure "
                f"with. Received: x=None, and the model takes {shapes}"
            )
        self._planner.check_memory(shapes)
        return random_inputs(shapes, self._graph.input_specs)

    def _for(self, inputs):
        """The engine for the inputs that are not None, and those inputs."""
        absent = tuple(i for i, x in enumerate(inputs) if x is None)
        if not absent:
            return self, inputs
        if absent not in self._without:
            names = [self._graph.input_specs[i]["name"] for i in absent]
            raise ValueError(
                f"The model cannot do without these inputs. Received: None for {names}"
            )
        return self._without[absent], [x for x in inputs if x is not None]

    def _run(self, inputs):
        if any(x is None for x in inputs):
            engine, inputs = self._for(inputs)
            return engine._run(inputs)
        # Zero times infinity is NaN, which skipping zeros would hide.
        shapes = tuple(x.shape for x in inputs)
        skip_zeros = self._planner.has(shapes, skip_zeros=True) or _are_finite(inputs)
        outputs = self._runner(inputs, skip_zeros)(inputs, only_finite=skip_zeros)
        if outputs is None:
            outputs = self._runner(inputs, skip_zeros=False)(inputs)
        for i, name in enumerate(self._graph.output_dtypes):
            if outputs[i].dtype.name != name:
                with np.errstate(over="ignore", invalid="ignore"):  # as Keras
                    outputs[i] = outputs[i].astype(as_numpy(name))
        return outputs

    def _note_direct(self, x, inputs):
        """Enables the fast path for this shape if inputs and outputs need no conversion."""
        if len(inputs) != 1 or inputs[0] is not x or x.dtype != np.float32:
            return
        if not self._planner.has((x.shape,), skip_zeros=True):
            return
        runner = self._runner([x], skip_zeros=True)
        if runner.program.is_one_step:
            dtypes = [*self._graph.output_dtypes, *(y.dtype for y in runner.program.outputs)]
            is_wide = self._graph.input_specs[0]["dtype"] in WIDE
            if set(dtypes) == {"float32"} and not is_wide:
                self._planner.direct[x.shape] = runner

    def _runner(self, inputs, skip_zeros):
        return self._planner.runner(tuple(x.shape for x in inputs), skip_zeros, self.verbose)


def _remade(graph, *settings):
    engine = Engine.__new__(Engine)
    engine._set_up(graph, *settings)
    return engine


def _sizes(shape):
    """`(any, 28, 28, 1)`."""
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _are_finite(inputs):
    return all(x.dtype.kind in "biu" or bool(np.isfinite(x).all()) for x in inputs)
