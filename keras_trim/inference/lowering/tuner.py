"""Which of several candidates is the fastest: looked up, measured on this machine, or told.

A tuner knows programs, not how they come about: `autotuning.py` lowers candidates and hands them
over.
"""

import functools
import itertools
import math
import time

from keras_trim.inference.kernels.instructions import COPY, FILL, GLOBAL_POOL
from keras_trim.inference.lowering.tuning_cache import TuningCache
from keras_trim.inference.program.tensors import Tensor
from keras_trim.inference.runtime.executor import Executor

_TURNS, _LEAST_TURNS = 20, 2
_MOST_TURNS = 60  # where several threads run, which is less steady
_SLOWER, _SLIGHTLY_SLOWER = 1.3, 1.1  # times the fastest
_ALIKE = 1.05  # times as long, where the other one takes more threads
EVICTED = 1 << 20  # floats, more than the caches of a core hold


class Tuner:
    """Measures candidates, and remembers the fastest for workloads that are alike.

    Args:
        cache: `TuningCache`, where the fastest candidates are noted, and known ones looked up.
        seconds: Float. How long to measure, times the number of candidates.
    """

    def __init__(self, cache=None, seconds=0.008):
        self.cache = cache or TuningCache()
        self.seconds = seconds
        self.most_floats = math.inf  # the memory that a benchmark may take

    def admit(self, workload, candidates):
        """The candidates to choose from, one at least. Subclasses may leave some out."""
        return candidates

    def known(self, workload, candidates):
        """The fastest candidate, or None if it has to be measured.

        Args:
            workload: Tuple. What layers have in common that are measured once for all of them: of a
                `repr` that is the same in any process. Its first item says what kind it is.
            candidates: List, likewise.
        """
        return candidates[0] if len(candidates) == 1 else self.cache.find(workload, candidates)

    def note(self, workload, candidates, candidate):
        """Notes the candidate that was measured to be the fastest."""
        self.cache.add(workload, candidates, candidate)

    def benchmark(self, program, ends, num_threads, is_repeated=False):
        """How long candidates take as within a network, in seconds.

        There the caches of a core hold few of the weights, and of the input what this core made.

        Args:
            program: `Program`, with the instructions of `evict_caches`, then of each candidate.
            ends: List of integers. Where the instructions of each of these end.
            num_threads: Integer. Threads that share the work.
            is_repeated: Boolean. Whether candidates run many times in a row, as the steps of a
                recurrent layer do: then their weights are in the caches.

        Returns:
            List of floats; of a candidate that fell behind, the time until it did.
        """
        execution = Executor(program, num_threads)
        execution.run_step((0, ends[0]))
        evict, *runs = (
            functools.partial(execution.run_step, step) for step in itertools.pairwise(ends)
        )
        before, repeats = (None, 2) if is_repeated else (evict, 1)
        return self.race(runs, _MOST_TURNS if num_threads > 1 else _TURNS, before, repeats)

    def time(self, runner):
        """How long a run of a program takes, in seconds, with inputs of zero."""
        with runner.execution() as execution:
            execution.run()
            start = time.perf_counter()
            execution.run()
            return time.perf_counter() - start

    def faster(self, runner, other):
        """The `ProgramRunner` that is the faster one of two, the first one if they are alike."""
        with runner.execution() as execution, other.execution() as other_execution:
            # Helpers sleep while the other one runs, and wake with the first of two runs.
            times = self.race([execution.run, other_execution.run], _MOST_TURNS, repeats=2)
        return runner if times[0] <= _ALIKE * times[1] else other

    def race(self, runs, most_turns, before=None, repeats=1):
        """How long each of some functions takes, in seconds.

        They run in turns, so that a moment in which something else slows the machine down is one
        for all of them. Those that fall behind leave.

        Args:
            runs: List of functions.
            most_turns: Integer.
            before: Function that runs before each of them, or None.
            repeats: Integer. How often each runs in a turn, the last time timed.
        """
        best, left, began = [math.inf] * len(runs), range(len(runs)), time.perf_counter()
        limit = self.seconds * len(runs) * most_turns / _TURNS
        for turn in range(most_turns):
            for i in left:
                if before is not None:
                    before()
                for _ in range(repeats):
                    start = time.perf_counter()
                    runs[i]()
                    elapsed = time.perf_counter() - start
                if turn:  # the first brings weights into the last cache
                    best[i] = min(best[i], elapsed)
            if turn >= _LEAST_TURNS:
                behind = _SLOWER if turn < most_turns // 2 else _SLIGHTLY_SLOWER
                left = [i for i in left if best[i] <= behind * min(best)]
                if len(left) == 1 or time.perf_counter() - began > limit:
                    break
        return best


def evict_caches(builder, x):
    """Emits what a network does to the caches before a layer, in two parts.

    Args:
        builder: `Builder`.
        x: `Tensor`, the layer's input.

    Returns:
        List of two integers, where each part ends: of the first, which runs once, and of the
        second, which runs before each run of the layer.
    """
    threads = builder.num_threads
    others = Tensor((1, EVICTED, threads), "NCHW")  # more than a core's own caches hold
    builder.most_floats += others.size
    builder.emit(FILL, y=others, size=others.size, value=1.0)
    ends = [builder.num_instructions]
    totals = Tensor((threads,), "NHWC")
    builder.emit(
        GLOBAL_POOL, x=others, x_sample=others.size, x_plane=others.plane, y=totals, batch=1,
        channels=threads, pixels=others.pixels, is_max=1,
    )  # fmt: skip
    if x.layout == "NCHW":  # each thread writes as many channels
        batch, sample, rows, columns, row = (
            x.batch, x.sample_size, x.channels, x.pixels, x.plane
        )  # fmt: skip
    else:
        batch, sample, rows, columns, row = 1, 0, x.batch, x.sample_size, x.sample_size
    builder.emit(
        COPY, x=x, y=x, batch=batch, x_sample=sample, y_sample=sample, rows=rows, columns=columns,
        x_row=row, y_row=row,
    )  # fmt: skip
    return [*ends, builder.num_instructions]


class ForcedTuner(Tuner):
    """Measures nothing: takes the candidates that it is told to take, by their names.

    Args:
        default: String, or tuple of strings. The first candidate whose name contains it is taken;
            of several strings, the first that fits any candidate decides. Where none does, it is
            the first candidate.
        names: The same for workloads of a kind, as `spmm="sparse"`. The kinds are "convolution",
            "spmm", "pointwise", "kn2row", "spmv", "depthwise", "pooling", "tiling" and "branches".

    Attributes:
        taken: List of pairs, `(kind, name)`, of all candidates that were taken.
    """

    def __init__(self, default="", **names):
        super().__init__()
        self.default, self.names, self.taken = default, names, []

    def known(self, workload, candidates):
        wanted = self.names.get(workload[0], self.default)
        wanted = (wanted,) if isinstance(wanted, str) else wanted
        found = next((c for name in wanted for c in candidates if name in str(c)), candidates[0])
        self.taken.append((workload[0], str(found)))
        return found

    def faster(self, runner, other):
        return other


class RepeatingTuner(Tuner):
    """A tuner for the same layers on several bands of an image: what it measures for the first band
    holds for the others.

    Args:
        tuner: `Tuner`.
    """

    def __init__(self, tuner):
        self._tuner, self._taken, self._count = tuner, {}, 0
        self.benchmark, self.most_floats, self.admit = (
            tuner.benchmark, tuner.most_floats, tuner.admit
        )  # fmt: skip

    def restart(self):
        """Begins with the next band."""
        self._count = 0

    def known(self, workload, candidates):
        self._count += 1
        known = self._taken.get(self._count)
        if known in candidates:
            return known
        found = self._tuner.known(workload, candidates)
        if found is not None:
            self._taken.setdefault(self._count, found)
        return found

    def note(self, workload, candidates, candidate):
        self._tuner.note(workload, candidates, candidate)
        self._taken.setdefault(self._count, candidate)
