"""The interpreter: one compiled function that runs the rows of a program's table.

Python is called once per inference, not once per layer, and moving to the next instruction costs
the threads less than a microsecond. Instructions refer to activations by their index in the arena,
and to constants by their index in a pool, so a program can run on several arenas at once.
"""

import importlib
import inspect
import pkgutil

from keras_trim.inference import kernels
from keras_trim.inference.kernels.compiled import compiled, inner
from keras_trim.inference.kernels.instructions import INSTRUCTIONS, TASKS, kernel_of
from keras_trim.inference.kernels.work_sharing import (
    control_alone,
    end_run,
    follow,
    lead,
    take,
    wait_for_helpers,
)

for _module in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}."):
    importlib.import_module(_module.name)  # registers its kernels


def _dispatch():
    """Makes the function that runs one instruction by calling its kernel.

    Kernels with a parameter `control` split the work themselves. For the others, a piece is one
    thread's share, and any thread may take it.
    """
    functions, whole, shared = {"take": take}, [], []
    for instruction in INSTRUCTIONS:
        kernel = kernel_of(instruction)
        if kernel is None:  # `TASKS`, or an instruction for other processors
            continue
        functions[f"run_{instruction.name}"] = kernel
        names = list(inspect.signature(kernel.py_func).parameters)
        takes_pieces = "control" in names
        names = [n if takes_pieces or n != "thread" else "piece" for n in names]
        call = f"run_{instruction.name}({', '.join(names)})"
        (whole if takes_pieces else shared).append((instruction.code, call))
    lines = [
        "def execute(p, f, arena, constants, index, short_index, control, thread, num_threads):",
        "    code = p[0]",
    ]
    for code, call in whole:
        lines += [f"    if code == {code}:", f"        {call}", "        return"]
    next_piece = "piece, _ = take(control, num_threads, 1, thread, num_threads)"
    lines += [f"    {next_piece}", "    while piece < num_threads:"]
    for number, (code, call) in enumerate(shared):
        lines += [f"        {'el' * (number > 0)}if code == {code}:", f"            {call}"]
    lines += [f"        {next_piece}"]
    exec("\n".join(lines), functions)
    return inner(functions["execute"], inline="always")


_execute, _TASKS, _TASKS_CODE = _dispatch(), TASKS.at, TASKS.code
_MISSING = {i.code: i.name for i in INSTRUCTIONS if i is not TASKS and kernel_of(i) is None}


def check_kernels(table):
    """Raises RuntimeError if a program has an instruction without a kernel: it would do nothing."""
    names = [_MISSING[code] for code in {*table[:, 0].tolist()} if code in _MISSING]
    if names:
        raise RuntimeError(
            "This installation of keras-trim has no kernels for some instructions. In a frozen "
            'application, collect all submodules of "keras_trim.inference"; otherwise reinstall '
            f"keras-trim. Received: a program with {sorted(names)}"
        )


@inner(inline="always")
def _run_tasks(
    p, program, factors, arena, constants, index, short_index, control, thread, num_threads
):  # fmt: skip
    """Runs tasks: all instructions of one task before taking the next."""
    alone = control_alone(control, thread, num_threads)
    first_row = p[_TASKS.first_row] + thread * p[_TASKS.rows_per_thread]
    begin, end = take(control, p[_TASKS.num_tasks], 1, thread, num_threads)
    while begin < end:
        for i in range(first_row + p[_TASKS.begins + begin], first_row + p[_TASKS.begins + end]):
            lead(alone, i)
            _execute(
                program[i], factors[i], arena, constants, index, short_index, alone,
                p[_TASKS.one] - 1, p[_TASKS.one],
            )  # fmt: skip
        begin, end = take(control, p[_TASKS.num_tasks], 1, thread, num_threads)


@compiled
def run(
    program, factors, arena, constants, index, short_index, control, thread, num_threads,
    begin, end,
):  # fmt: skip
    """Runs the instructions from `begin` to `end` if `thread` is 0, the leader.

    Other threads are helpers: they share the leader's work, and return when there has been none for
    a while. The leader ends the run that `begin_run` began.
    """
    i = begin
    while True:
        if thread:
            i = follow(control, thread)
            if i < 0:
                return
        elif i == end:
            end_run(control)
            return
        else:
            lead(control, i)
        p = program[i]
        if p[0] == _TASKS_CODE:
            _run_tasks(
                p, program, factors, arena, constants, index, short_index, control, thread,
                num_threads,
            )  # fmt: skip
        else:
            _execute(
                p, factors[i], arena, constants, index, short_index, control, thread,
                num_threads,
            )  # fmt: skip
        if not thread:
            wait_for_helpers(control, num_threads)
            i += 1
