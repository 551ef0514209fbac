"""The engine: compiles a pruned model once, then runs it and skips the zeros."""

import threading

import numpy as np

from keras_trim.inference.fusion import fuse
from keras_trim.inference.kernels.program import aligned_zeros, run
from keras_trim.inference.plan import HostStep, make_program
from keras_trim.inference.tuning import Tuner


class Engine:
    """Runs a Keras model on the CPU and skips its zeros."""

    def __init__(self, model, num_threads=None):
        from keras_trim.inference.reading import read

        self._graph = fuse(read(model))
        self.num_threads = num_threads or 1
        self._programs = {}
        self._lock = threading.Lock()

    def __call__(self, x):
        flat = [np.asarray(a) for a in _flatten(x)]
        outputs = self._compiled([a.shape for a in flat]).run(flat)
        outputs = [
            a.astype(d, copy=False)
            for a, d in zip(outputs, self._graph.output_dtypes, strict=True)
        ]
        return _unflatten(self._graph.output_structure, outputs)

    def _compiled(self, shapes):
        key = tuple(shapes)
        if key not in self._programs:
            program = make_program(
                self._graph, shapes, self.num_threads, Tuner(), aligned_zeros
            )
            self._programs[key] = Execution(program, self.num_threads)
        return self._programs[key]


def _flatten(x):
    if isinstance(x, dict):
        return [leaf for key in sorted(x) for leaf in _flatten(x[key])]
    if isinstance(x, list | tuple):
        return [leaf for part in x for leaf in _flatten(part)]
    return [x]


def _unflatten(structure, leaves):
    if isinstance(structure, dict):
        return {key: _unflatten(value, leaves) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return type(structure)(_unflatten(value, leaves) for value in structure)
    return leaves[structure]


class Execution:
    """A program and the memory it runs in."""

    def __init__(self, program, num_threads):
        self.program, self.num_threads = program, num_threads
        self._arena = aligned_zeros(program.arena_size)
        self._barrier = np.zeros(2, np.int64)

    def view(self, tensor):
        view = self._arena[tensor.offset : tensor.offset + tensor.size]
        if tensor.dtype == "int32":
            view = view.view(np.int32)
        return view.reshape(tensor.shape)

    def run(self, inputs):
        for tensor, x in zip(self.program.inputs, inputs, strict=True):
            np.copyto(self.view(tensor), x, casting="unsafe")
        for step in self.program.steps:
            if isinstance(step, HostStep):
                step.function(*(self.view(t) for t in (*step.inputs, *step.outputs)))
            else:
                self._run_native(*step)
        return [self.view(tensor).copy() for tensor in self.program.outputs]

    def _run_native(self, begin, end):
        p = self.program
        arguments = (
            p.table, p.factors, self._arena, p.constants, p.index, p.short_index, self._barrier,
        )  # fmt: skip
        if self.num_threads == 1:
            run(*arguments, 0, 1, begin, end)
            return
        others = [
            threading.Thread(target=run, args=(*arguments, i, self.num_threads, begin, end))
            for i in range(1, self.num_threads)
        ]
        for t in others:
            t.start()
        run(*arguments, 0, self.num_threads, begin, end)
        for t in others:
            t.join()
