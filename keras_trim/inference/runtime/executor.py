"""Executors: the arena and threads that run a program."""

import contextlib
import os
import queue
import threading
import time
import weakref

import numpy as np

from keras_trim.alignment import aligned_zeros
from keras_trim.inference.kernels.llvm import LINE
from keras_trim.inference.kernels.work_sharing import (
    begin_run,
    end_run,
    is_asleep,
    make_control,
    note_woken,
)
from keras_trim.inference.program.memory_planner import resolve
from keras_trim.inference.program.program import HostStep
from keras_trim.inference.runtime.handover import are_zero, note_address
from keras_trim.inference.runtime.interpreter import check_kernels, run


@contextlib.contextmanager
def states_kept(graph):
    """Restores the state of layers that run in Keras on exit."""
    in_keras = [node.operation for node in graph.nodes if hasattr(node.operation, "snapshot")]
    restores = [operation.snapshot() for operation in in_keras]
    try:
        yield
    finally:
        for restore in restores:
            restore()


class ProgramRunner:
    """Runs one program for any number of concurrent callers.

    Each concurrent call has its own executor, which later calls reuse.

    Args:
        program: `program.Program`.
        num_threads: Integer.
    """

    def __init__(self, program, num_threads):
        check_kernels(program.table)
        self.program, self.num_threads = program, num_threads
        self._free = []  # executors; list operations are atomic

    def __call__(self, inputs, only_finite=False):
        """Outputs, or None if `only_finite` and an input is not finite."""
        execution = self._take()
        try:
            return execution(inputs, only_finite)
        finally:
            self._free.append(execution)

    def run_directly(self, x):
        """Outputs of a one-step program for its only input, a float32 array; None if not finite.

        Running a network evicts the interpreter from the cache, so each Python line here costs
        about 1 us: keep this path short.
        """
        try:
            execution = self._free.pop()
        except IndexError:
            execution = Executor(self.program, self.num_threads)
        try:
            return execution.run_directly(x)
        finally:
            self._free.append(execution)

    @contextlib.contextmanager
    def execution(self):
        """An `Executor` for exclusive use in the body."""
        execution = self._take()
        try:
            yield execution
        finally:
            self._free.append(execution)

    def _take(self):
        try:
            return self._free.pop()
        except IndexError:
            return Executor(self.program, self.num_threads)


class Executor:
    """An arena and threads to run one program in."""

    def __init__(self, program, num_threads):
        self.program = program
        self._arena = aligned_zeros(program.arena_size)
        self._arguments = (
            program.table, program.factors, self._arena, program.constants, program.index,
            program.short_index,
        )  # fmt: skip
        self._inputs = [self.view(tensor) for tensor in program.inputs]
        self._sources = self.view(program.sources).view(np.int64)[:, 0]
        self._checks = self.view(program.checks).reshape(-1, LINE)[:, 0]
        self._outputs = [self.view(tensor) for tensor in program.outputs]
        self._team = _Team(num_threads, self._arguments)

    def __call__(self, inputs, only_finite):
        """The same as `ProgramRunner.__call__`."""
        if not self.program.is_one_step:
            return self.run() if self.set_inputs(inputs) or not only_finite else None
        taken = self._note(inputs)
        self._team.run(0, self.program.steps[0][1])
        del taken
        return self._new_outputs() if not only_finite or are_zero(self._checks) else None

    def run_directly(self, x):
        """The same as `ProgramRunner.run_directly`."""
        if x.flags.carray:
            note_address(x, self._sources, 0)
        else:
            x = self._note([x])  # must live until the program has copied it
        self._team.run(0, self.program.steps[0][1])
        return [place.copy() for place in self._outputs] if are_zero(self._checks) else None

    def set_inputs(self, inputs):
        """Copies arrays of the planned shapes into the arena; returns whether all are finite."""
        taken = self._note(inputs)
        if taken:
            self._team.run(*self.program.taking)
        return are_zero(self._checks)

    def _note(self, inputs):
        """Records the addresses of inputs; returns arrays that must live until they are copied."""
        taken = []
        for place, x in zip(self._inputs, inputs, strict=True):
            if place.dtype == np.int32:
                with np.errstate(invalid="ignore"):  # as Keras
                    np.copyto(place, x, casting="unsafe")
            else:
                x = _readable(x)
                if x.flags.writeable:
                    note_address(x, self._sources, len(taken))
                else:  # read-only arrays are another Numba type, which would compile again
                    self._sources[len(taken)] = x.ctypes.data
                taken.append(x)
        return taken

    def run(self):
        """Outputs for the inputs of `set_inputs`: a list of new arrays."""
        for step in self.program.steps:
            self.run_step(step)
        return self._new_outputs()

    def _new_outputs(self):
        return [place.copy() for place in self._outputs]

    def run_step(self, step):
        if isinstance(step, HostStep):
            with np.errstate(all="ignore"):  # as Keras and the kernels
                step.function(*(self.view(tensor) for tensor in (*step.inputs, *step.outputs)))
        else:
            self._team.run(*step)

    def view(self, tensor):
        """An NHWC tensor as an array, a view of the arena."""
        start = resolve(tensor)
        values = self._arena[start : start + tensor.size]
        values = values.view(np.int32) if tensor.dtype == "int32" else values
        return values.reshape(tensor.shape)

    def profile(self, repeats):
        """Median seconds of each node, alone on one thread: dictionary, node -> seconds.

        Call `set_inputs` first.
        """
        program, steps, host_nodes = self.program, [], iter(self.program.host_nodes)
        for step in program.steps:
            if isinstance(step, HostStep):
                steps.append((step, next(host_nodes)))
            else:
                steps += [((i, i + 1), program.nodes[i]) for i in program.rows_alone(*step)]
        seconds = np.zeros((repeats, len(steps)))
        control = make_control(1)
        for repeat in range(repeats):
            for i, (step, _) in enumerate(steps):
                start = time.perf_counter()
                if isinstance(step, HostStep):
                    self.run_step(step)
                else:
                    run(*self._arguments, control, 0, 1, *step)
                seconds[repeat, i] = time.perf_counter() - start
        totals = {}
        for (_, node), duration in zip(steps, np.median(seconds, axis=0), strict=True):
            totals[node] = totals.get(node, 0.0) + duration
        return totals


def _readable(x):
    """The array if it is contiguous, aligned float32, as kernels need it; else such a copy."""
    if x.dtype == np.float32 and x.flags.c_contiguous and x.flags.aligned:
        return x
    with np.errstate(over="ignore", invalid="ignore"):  # as Keras
        return np.array(x, np.float32, order="C")


class _Team:
    """The caller's thread and its helpers.

    After work, a helper spins for a moment without the GIL. If no more work comes, it sleeps on its
    queue.

    Args:
        num_threads: Integer.
        arguments: Tuple. The first arguments of `run`: the program and its memory.
    """

    def __init__(self, num_threads, arguments):
        self._num_threads, self._arguments = num_threads, arguments
        self._start_helpers()

    def _start_helpers(self):
        self._process = os.getpid()
        self._control = make_control(self._num_threads)
        self._queues = [queue.SimpleQueue() for _ in range(self._num_threads - 1)]
        for i, wakes in enumerate(self._queues):
            arguments = (*self._arguments, self._control, i + 1, self._num_threads, 0, 0)
            threading.Thread(target=_help, args=(wakes, arguments), daemon=True).start()
        weakref.finalize(self, _stop, self._control, self._queues)

    def run(self, begin, end):
        if self._process != os.getpid():  # a forked child has no helper threads
            self._start_helpers()
        try:
            if begin_run(self._control, self._num_threads):
                self._wake()
            run(*self._arguments, self._control, 0, self._num_threads, begin, end)
        except BaseException:  # Ctrl-C before `run`
            end_run(self._control)
            raise

    def _wake(self):
        """Wakes the helpers that sleep."""
        for i, wakes in enumerate(self._queues):
            if is_asleep(self._control, i + 1):
                wakes.put(True)
                note_woken(self._control, i + 1)


def _stop(control, queues):
    """Ends helpers."""
    end_run(control)
    for wakes in queues:
        wakes.put(False)


def _help(wakes, arguments):
    while wakes.get():
        run(*arguments)
