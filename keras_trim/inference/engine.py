"""The engine: reads a model with zeros in it once, then runs it and skips them."""

import contextlib
import itertools
import numbers
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_trim.arguments import takes_named
from keras_trim.inference.frontend.inputs import flatten_inputs, restore_structure
from keras_trim.inference.frontend.prediction import batches_of, is_array, progress
from keras_trim.inference.ir import serialization as files
from keras_trim.inference.ir.dtypes import WIDE, as_numpy
from keras_trim.inference.ir.rewrites import rewrite
from keras_trim.inference.lowering.tuner import Tuner
from keras_trim.inference.lowering.tuning_cache import TuningCache
from keras_trim.inference.planner import Planner
from keras_trim.inference.program.listing import ProgramListing, list_program
from keras_trim.inference.runtime.executor import states_kept
from keras_trim.inference.runtime.summary import BenchmarkResult, summarize
from keras_trim.progress import check_verbose

if TYPE_CHECKING:
    import keras

    from keras_trim.inference.runtime.summary import EngineSummary

_FLOAT32 = np.dtype(np.float32)
_MOST_OPTIONAL = 4  # inputs, as a graph is read for each way to leave some out


class Engine:
    """Runs a trained Keras model on the CPU and skips its zeros.

    The model need not have been pruned by this library. Its weights are read once: what is trained
    later does not reach the engine. Batch normalization is folded into weights; activations, sums
    and padding are fused with the layer before or after them; for each layer several kernels,
    sparse and dense, are measured on this machine and the fastest is kept. A layer without a kernel
    runs as the Keras layer that it is.

    A program is made for each shape of inputs that it meets, which takes a few seconds, and about
    one in later processes, as the choices of kernels are kept on disk; the first engine on a
    machine compiles the kernels, which takes about a minute, once.

    Calls from several Python threads run at the same time, each with `num_threads` threads.

    Args:
        model: Keras model, built.
        num_threads: Integer. Threads per call, the processor's cores by default. A network that
            takes less than a millisecond runs on one of them if that is measured to be faster.
        verbose: `"auto"`, `True` or `False`. Whether to say what it does where that takes longer
            than two seconds; `"auto"`: on a terminal and in a notebook.
        tuner: `keras_trim.inference.ForcedTuner`, which names the kernels to take. By default the
            fastest are measured.

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
        # These need Keras.
        from keras_trim.inference.frontend.importer import import_model, optional_inputs

        self._set_up(rewrite(import_model(model)), num_threads, tuner=tuner)
        self.verbose = verbose
        optional = optional_inputs(model)
        if len(optional) > _MOST_OPTIONAL:
            raise ValueError(
                f"The engine takes models with {_MOST_OPTIONAL} optional inputs at most. "
                f"Received: model={model.name}, with {len(optional)}"
            )
        for number in optional:
            self._graph.input_specs[number]["optional"] = True
        for count in range(1, len(optional) + 1):
            for absent in itertools.combinations(optional, count):
                with contextlib.suppress(Exception):  # of layers that cannot do without these
                    graph = rewrite(import_model(model, absent))
                    self._without[absent] = _remade(
                        graph, self.num_threads, None, None, None, tuner
                    )

    @classmethod
    def _of(cls, model, owners):
        """An engine, and in `owners` the layer that each name in its graph stands for."""
        from keras_trim.inference.frontend.importer import import_model

        return _remade(rewrite(import_model(model, owners=owners)), None, None, None)

    def _set_up(
        self, graph, num_threads, source=None, max_bytes=None, without=None, tuner=None
    ):  # fmt: skip
        if num_threads is None:
            num_threads = _available_cores()
        num_threads = _positive(num_threads, "num_threads")
        self._graph = graph
        self._without = without or {}  # numbers of inputs that are None -> engine of the others
        self._source, self._max_bytes = source, max_bytes  # the file of an engine that was loaded
        self.num_threads = num_threads
        self._tuner = tuner or Tuner(TuningCache.of_this_machine())
        self._planner = Planner(graph, num_threads, self._tuner, source, max_bytes)

    def __call__(self, x: Any) -> Any:
        """Runs the model.

        Args:
            x: What `model.predict` takes: an array, whose first axis is that of the batch, or a
                list or dictionary of arrays.

        Returns:
            Arrays in the structure of the model's outputs.

        Raises:
            ValueError: if the inputs are not those of the model.
        """
        # Of a small network, all of these checks would take a tenth of the time.
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
        # Programs, their memory and threads are made anew.
        settings = self.num_threads, self._source, self._max_bytes, self._without
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
        """Runs the model on batches of `x`; returns what `model.predict` returns.

        Args:
            x: What `model.predict` takes: arrays, as for a call; or a generator, `tf.data.Dataset`,
                `keras.utils.PyDataset` or PyTorch `DataLoader`, whose targets are left out; or a
                pandas frame. Where Keras is not installed, arrays, or any iterable of batches.
            batch_size: Integer. Examples per run, 32 by default; memory grows with it. Data that
                come in batches keep theirs.
            verbose: Integer or `"auto"`. Whether to show a bar, as `model.predict` has it, but 0 by
                default.
            steps: Integer. How many batches to run at most; all by default.

        Raises:
            ValueError: if the inputs are not those of the model, or there are none.
        """
        batch_size = None if batch_size is None else _positive(batch_size, "batch_size")
        steps = None if steps is None else _positive(steps, "steps")
        if is_array(x):
            engine, inputs = self._for(self._inputs(x))
            size = batch_size or 32
            starts = range(0, max(len(inputs[0]), 1), size)[:steps]
            batches = ([a[i : i + size] for a in inputs] for i in starts)
            total = len(starts)
        else:
            engine, batches = self, map(self._inputs, batches_of(x, batch_size, steps))
            total = steps or _length(x)
        parts = []
        with progress(verbose, total) as advance:
            for batch in batches:
                parts.append(engine._run(batch))
                advance()
        outputs = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        return restore_structure(self._graph.output_structure, outputs)

    def summary(self, x: Any = None) -> "EngineSummary":
        """What runs how, and how long it takes: a run by itself, without the checks of a call.

        Layers with a state are left as they were.

        Args:
            x: Arrays to measure with; random ones, one example, by default.

        Returns:
            `EngineSummary`: `print` it for a table; `.rows` is the data.

        Raises:
            ValueError: if `x` is not given and the model leaves sizes other than the batch's free.
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

            times = _measure(run, 0.3)
            profile = execution.profile(repeats=5)
        return summarize(self._graph, runner, times, profile)

    def program(self, x: Any = None) -> ProgramListing:
        """Lists the instructions that inputs of such shapes run, one a line: for debugging.

        Args:
            x: Arrays, as for a call; random ones, one example, by default.

        Returns:
            `ProgramListing`, a list with the `layer`, `instruction` and `operands` of each line;
            `print` it for text.

        Raises:
            ValueError: if `x` is not given and the model leaves sizes other than the batch's free.
        """
        inputs = self._example() if x is None else self._inputs(x)
        engine, inputs = self._for(inputs)
        runner = engine._runner(inputs, _are_finite(inputs))
        return list_program(runner.program, [node.name for node in engine._graph.nodes])

    def benchmark(self, x: Any = None, seconds: float = 1.0) -> BenchmarkResult:
        """Measures calls, `engine(x)`, from the arrays that are handed in to those that come out.

        Layers with a state, such as that of a random generator, are left as they were.

        Args:
            x: Arrays to measure with; random ones, one example, by default.
            seconds: Float. How long to measure.

        Returns:
            `BenchmarkResult`.
        """
        if x is None:
            x = restore_structure(self._graph.input_structure, self._example())
        with states_kept(self._graph):
            times = _measure(lambda: self(x), seconds)
        engine, inputs = self._for(self._inputs(x))
        runner = engine._runner(inputs, _are_finite(inputs))
        return BenchmarkResult(times, len(inputs[0]), runner.num_threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the engine, without its choices of kernels.

        The file loads without Keras: NumPy, Numba and this library are all that it needs.

        Args:
            path: Path that ends in `.engine`.

        Raises:
            ValueError: if a layer runs in Keras; the message names it. Or if inputs are optional.
            OSError: if the file cannot be written; one that was there stays as it was.
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
        """Loads an engine; safe for a file from anyone.

        Whether the operations of a file fit one another is known when the sizes of inputs are: a
        call of an engine that was loaded may raise `FormatError`, too.

        Args:
            path: Path of a file that `save` wrote.
            num_threads, tuner: As of `Engine`.
            max_bytes: Integer. How much memory the file may decode to, and how much a run may take.
                By default 1 GiB, or 1000 times the size of the file, or of the weights and inputs,
                if that is more.
            verbose: As of `Engine`.

        Raises:
            keras_trim.storage.FormatError: if the file is damaged or was not written by `save`.
        """
        engine = cls.__new__(cls)
        check_verbose(verbose)
        graph = files.load_graph(path, max_bytes)
        engine._set_up(graph, num_threads, path, max_bytes, tuner=tuner)
        engine.verbose = verbose
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
        random = np.random.default_rng(0)
        return [
            random.standard_normal(shape, np.float32).astype(as_numpy(spec["dtype"]))
            for shape, spec in zip(shapes, self._graph.input_specs, strict=True)
        ]

    def _for(self, inputs):
        """The engine for the inputs that are there, and these."""
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
        # Zero times an infinity is NaN, which a zero that is skipped would hide.
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
        """Notes the runner of such arrays if they, and its outputs, go without changes."""
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


def _length(x):
    try:
        return len(x)
    except TypeError:  # of a generator, or of data without an end
        return None


def _measure(run, seconds):
    """Seconds that each of several runs took, after one that is not counted."""
    run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return np.array(times)


def _positive(number, name):
    """A positive integer of any type, as Python's."""
    is_integer = isinstance(number, numbers.Integral) and not isinstance(number, bool)
    if not is_integer or number < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={number!r}")
    return int(number)


def _available_cores():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _are_finite(inputs):
    return all(x.dtype.kind in "biu" or bool(np.isfinite(x).all()) for x in inputs)
