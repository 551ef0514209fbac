"""Plans and caches one program per input shape."""

import math
import threading

import numpy as np

from keras_trim.inference.lowering.lower import lower_graph
from keras_trim.inference.runtime import forking
from keras_trim.inference.runtime.compiling import watched
from keras_trim.inference.runtime.executor import ProgramRunner
from keras_trim.storage import FormatError
from keras_trim.storage.reader import FREE_BYTES, FREE_FACTOR

MAX_PROGRAMS = 32  # each holds a copy of the weights; the oldest is dropped
SMALL_SECONDS = 1e-3  # a run this short may be faster on one thread
SMALL_BYTES = 1 << 25  # ... if it takes no more memory than this


class Planner:
    """The programs of one graph.

    Args:
        graph: `Graph`.
        num_threads: Integer.
        tuner: `Tuner` or `ForcedTuner`.
        source: Path of the file that the graph was loaded from, or `None`. Such a graph is not
            trusted, and may ask for any amount of memory.
        max_bytes: Integer. How much memory a run may take if there is a source. `None`: 1 GiB, or,
            if more, 1000 times the size of weights and inputs.
    """

    def __init__(self, graph, num_threads, tuner, source=None, max_bytes=None):
        self._graph, self._num_threads, self._tuner = graph, num_threads, tuner
        self._source, self._max_bytes = source, max_bytes
        self._runners = {}  # (shapes, skip_zeros) -> runner; the oldest first
        self.direct = {}  # shape -> runner, for arrays that need no conversion
        self.lock = threading.Lock()
        forking.protect(self)

    def has(self, shapes, skip_zeros):
        return (shapes, skip_zeros) in self._runners

    def runner(self, shapes, skip_zeros, verbose="auto"):
        """The `ProgramRunner` for inputs of these shapes; plans it on first use.

        Args:
            shapes: Tuple of tuples of integers.
            skip_zeros: Bool. Whether the program skips zero weights, which is correct for finite
                inputs only.
            verbose: Whether to report progress if planning takes longer than two seconds.

        Raises:
            ValueError: if the operations do not fit these shapes.
            FormatError: the same, if the graph is from a file.
        """
        key = (shapes, skip_zeros)
        runner = self._runners.get(key)
        if runner is None:
            with self.lock:
                if key not in self._runners:
                    with watched(verbose):
                        self._runners[key] = self._plan_fastest(shapes, skip_zeros)
                    self._tuner.cache.save()
                    if len(self._runners) > MAX_PROGRAMS:
                        del self._runners[next(iter(self._runners))]
                        self.direct = {}
                runner = self._runners[key]
        return runner

    def check_memory(self, shapes):
        """Raises `FormatError` if a file declares inputs larger than a run's memory limit."""
        if sum(map(math.prod, shapes)) > self._max_floats(0):
            raise FormatError(
                "This engine declares inputs that need more memory than is allowed. "
                f"Received: path={self._source}, with inputs of shapes {shapes!r:.200}"
            )

    def _plan_fastest(self, shapes, skip_zeros):
        """Plans for all threads, or for one if that is faster, as it may be for small networks."""
        runner = self._plan(shapes, skip_zeros, self._num_threads)
        if (
            self._num_threads == 1
            or runner.program.num_bytes > SMALL_BYTES
            or not runner.program.is_native
            or self._tuner.time(runner) > SMALL_SECONDS
        ):
            return runner
        return self._tuner.faster(self._plan(shapes, skip_zeros, 1), runner)

    def _plan(self, shapes, skip_zeros, num_threads):
        max_floats = self._max_floats(sum(map(math.prod, shapes)))
        try:
            program = lower_graph(
                self._graph, shapes, num_threads, self._tuner, skip_zeros, max_floats
            )
        except ValueError as error:
            if self._source is None:
                raise ValueError(
                    f"`x` must have sizes that all layers take: {error}. "
                    f"Received: inputs of shapes {list(shapes)}"
                ) from error
            raise FormatError(
                f"This engine cannot take inputs of shapes {list(shapes)}: {error}. "
                f"Received: path={self._source}"
            ) from None
        return ProgramRunner(program, num_threads)

    def _max_floats(self, inputs):
        """How many floats a run may take, given the number of floats in its inputs."""
        if self._source is None:
            return math.inf
        if self._max_bytes is not None:
            return self._max_bytes // 4
        weights = sum(
            array.size
            for node in self._graph.nodes
            for array in vars(node.operation).values()
            if isinstance(array, np.ndarray)
        )
        return max(FREE_BYTES // 4, FREE_FACTOR * (inputs + weights))
