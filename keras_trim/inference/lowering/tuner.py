"""Chooses the fastest of several candidates: looked up, measured on this machine, or forced.

A tuner runs programs and does not know how they are made: `autotuning.py` lowers the candidates.
"""

import functools
import itertools
import math
import time
from typing import Any

from keras_trim.arguments import described
from keras_trim.inference.kernels.instructions import COPY, FILL, GLOBAL_POOL
from keras_trim.inference.lowering.tuning_cache import TuningCache
from keras_trim.inference.program.tensors import Tensor
from keras_trim.inference.runtime.executor import Executor

_TURNS, _LEAST_TURNS = 20, 2
_MOST_TURNS = 60  # with several threads, whose times vary more
_SLOWER, _SLIGHTLY_SLOWER = 1.3, 1.1  # times the fastest, to be dropped
_ALIKE = 1.05  # times as long still counts as alike: the other one takes more threads
EVICTED = 1 << 20  # floats, more than a core's own caches hold


class Tuner:
    """Measures candidates, and remembers the fastest one for each workload key.

    Args:
        cache: `TuningCache`, in which to record the fastest candidates and look them up.
        seconds: Float. How long to measure, per candidate.
    """

    def __init__(self, cache=None, seconds=0.008):
        self.cache = cache or TuningCache()
        self.seconds = seconds

    def admit(self, workload, candidates):
        """Returns the candidates to choose from, at least one. Subclasses may leave some out."""
        return candidates

    def known(self, workload, candidates):
        """Returns the fastest candidate, or None if it must be measured.

        Args:
            workload: Tuple. The workload key: layers with the same key are measured once. Its
                `repr` must be the same in any process. Its first item is the kind of workload.
            candidates: List; the `repr` likewise.
        """
        return candidates[0] if len(candidates) == 1 else self.cache.find(workload, candidates)

    def note(self, workload, candidates, candidate):
        """Records the candidate that was measured as the fastest."""
        self.cache.add(workload, candidates, candidate)

    def benchmark(self, program, ends, num_threads, is_repeated=False):
        """Measures how long candidates take within a network, in seconds.

        There, a core's caches hold few of the weights, and only its own part of the input.

        Args:
            program: `Program`, with the instructions of `evict_caches`, then of each candidate.
            ends: List of integers. Where each of these parts of the program ends.
            num_threads: Integer. Threads that share the work.
            is_repeated: Boolean. Whether candidates run many times in a row, like the steps of a
                recurrent layer, so that their weights are in the caches.

        Returns:
            List of floats. For a candidate that was dropped, its time so far.
        """
        execution = Executor(program, num_threads)
        execution.run_step((0, ends[0]))
        evict, *runs = (
            functools.partial(execution.run_step, step) for step in itertools.pairwise(ends)
        )
        before, repeats = (None, 2) if is_repeated else (evict, 1)
        return self.race(runs, _MOST_TURNS if num_threads > 1 else _TURNS, before, repeats)

    def time(self, runner):
        """Measures how long a run of a program takes, in seconds, with inputs of zero."""
        with runner.execution() as execution:
            execution.run()
            start = time.perf_counter()
            execution.run()
            return time.perf_counter() - start

    def faster(self, runner, other):
        """Returns the faster `ProgramRunner` of two, or the first one if they are alike."""
        with runner.execution() as execution, other.execution() as other_execution:
            # Helpers sleep while the other program runs, and wake up in the first of two runs.
            times = self.race([execution.run, other_execution.run], _MOST_TURNS, repeats=2)
        return runner if times[0] <= _ALIKE * times[1] else other

    def race(self, runs, most_turns, before=None, repeats=1):
        """Measures how long each of several functions takes, in seconds.

        They take turns, so that a moment in which the machine is slow affects all of them. Those
        that fall behind are dropped.

        Args:
            runs: List of functions.
            most_turns: Integer.
            before: Function that runs before each of them, or None.
            repeats: Integer. How often each runs per turn; only the last run is timed.
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
                if turn:  # the first one loads weights into the last-level cache
                    best[i] = min(best[i], elapsed)
            if turn >= _LEAST_TURNS:
                behind = _SLOWER if turn < most_turns // 2 else _SLIGHTLY_SLOWER
                left = [i for i in left if best[i] <= behind * min(best)]
                if len(left) == 1 or time.perf_counter() - began > limit:
                    break
        return best


def evict_caches(builder, x):
    """Emits instructions that leave the caches as a network does before a layer, in two parts.

    Args:
        builder: `Builder`.
        x: `Tensor`, the layer's input.

    Returns:
        List of two integers, where each part ends. The first part runs once, the second before each
        run of the layer.
    """
    threads = builder.num_threads
    others = Tensor((1, EVICTED, threads), "NCHW")  # one plane per thread
    builder.most_floats += others.size
    builder.emit(FILL, y=others, size=others.size, value=1.0)
    ends = [builder.num_instructions]
    totals = Tensor((threads,), "NHWC")
    builder.emit(
        GLOBAL_POOL, x=others, x_sample=others.size, x_plane=others.plane, y=totals, batch=1,
        channels=threads, pixels=others.pixels, is_max=1,
    )  # fmt: skip
    if x.layout == "NCHW":  # each thread writes the same number of channels
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


def check_tuner(tuner):
    """Raises `ValueError` unless the argument `tuner` is a `Tuner` or `None`."""
    if not (tuner is None or isinstance(tuner, Tuner)):
        raise ValueError(
            "`tuner` must be a tuner, such as `keras_trim.inference.ForcedTuner('sparse')`. "
            f"Received: tuner={described(tuner)}"
        )


class ForcedTuner(Tuner):
    """Takes candidates by name, without measuring them.

    Args:
        default: String, or tuple of strings. Takes the first candidate whose name contains it. Of
            several strings, the first that matches any candidate decides. If none matches, takes
            the first candidate.
        names: The same per kind of workload, as in `spmm="sparse"`. The kinds are "convolution",
            "spmm", "pointwise", "kn2row", "spmv", "depthwise", "pooling", "tiling" and "branches".

    Attributes:
        taken: List of `(kind, name)` pairs of all candidates taken.
    """

    def __init__(self, default: str | tuple[str, ...] = "", **names: str | tuple[str, ...]) -> None:
        super().__init__()
        self.default: str | tuple[str, ...] = default
        self.names: dict[str, str | tuple[str, ...]] = names
        self.taken: list[tuple[str, str]] = []

    def known(self, workload: Any, candidates: Any) -> Any:
        wanted = self.names.get(workload[0], self.default)
        wanted = (wanted,) if isinstance(wanted, str) else wanted
        found = next((c for name in wanted for c in candidates if name in str(c)), candidates[0])
        self.taken.append((workload[0], str(found)))
        return found

    def faster(self, runner: Any, other: Any) -> Any:
        return other


class RepeatingTuner(Tuner):
    """Reuses the choices for the first band of an image for the same layers on the other bands.

    Args:
        tuner: `Tuner`.
    """

    def __init__(self, tuner):
        self._tuner, self._taken, self._count = tuner, {}, 0
        self.benchmark, self.admit = tuner.benchmark, tuner.admit

    def restart(self):
        """Begins the next band."""
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
