"""Runs a program: a table of instructions, one row each, that one compiled function goes through.

Python is called once per inference, not once per layer, and threads meet at a barrier after each
instruction, which costs less than a microsecond. Instructions name places in one buffer of
activations, the arena, and in tables of constants by their index, so a program can be run on
several arenas at a time.
"""

import hashlib
import pathlib

from numba import njit

from keras_trim.inference.kernels.arithmetic import binary, broadcast
from keras_trim.inference.kernels.convolution import convolution
from keras_trim.inference.kernels.depthwise import depthwise
from keras_trim.inference.kernels.elementwise import unary
from keras_trim.inference.kernels.flat import depthwise_flat
from keras_trim.inference.kernels.moving import copy, gather, transpose
from keras_trim.inference.kernels.normalization import group_norm
from keras_trim.inference.kernels.padding import pad
from keras_trim.inference.kernels.pooling import global_pool, pool
from keras_trim.inference.kernels.recurrent import cell
from keras_trim.inference.kernels.resizing import resize
from keras_trim.inference.kernels.rows import (
    dense_rows,
    layer_norm,
    lookup_rows,
    softmax,
    sparse_rows,
)
from keras_trim.inference.kernels.strided import constant, fill, move, scale
from keras_trim.inference.kernels.threads import wait_for_all, wait_for_work

OPERANDS = 40  # integers per instruction, its code the first
FACTORS = 4  # float32 per instruction

OPCODES = (
    "convolution", "pad", "depthwise", "unary", "binary", "pool", "global_pool", "transpose",
    "copy", "gather", "sparse_rows", "dense_rows", "softmax", "layer_norm",
    "move", "fill", "constant", "scale", "broadcast", "cell", "lookup_rows",
    "depthwise_flat", "resize", "group_norm",
)  # fmt: skip
CODES = {name: code for code, name in enumerate(OPCODES)}


def _fingerprint():
    """Changes with any of the kernels. Numba's cache looks at this file alone."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _make_run(fingerprint):
    @njit(nogil=True, boundscheck=False, cache=True)
    def run(
        program, factors, arena, constants, index, short_index, control, thread, num_threads,
        begin, end,
    ):  # fmt: skip
        """Runs the instructions from `begin` to `end`, as the first of `num_threads` threads.

        The others, its helpers, run what is posted until there has been nothing for a while.
        """
        _ = fingerprint  # part of the key of Numba's cache, as all that a function closes over
        while True:
            if thread:
                begin, end = wait_for_work(control, thread)
                if begin < 0:
                    return
            for i in range(begin, end):
                p, f = program[i], factors[i]
                code = p[0]
                if code == 0:
                    convolution(p, f, arena, constants, index, control, thread, num_threads)
                elif code == 1:
                    pad(p, f, arena, control, thread, num_threads)
                elif code == 2:
                    depthwise(p, f, arena, constants, index, control, thread, num_threads)
                elif code == 3:
                    unary(p, f, arena, thread, num_threads)
                elif code == 4:
                    binary(p, f, arena, thread, num_threads)
                elif code == 5:
                    pool(p, f, arena, constants, index, control, thread, num_threads)
                elif code == 6:
                    global_pool(p, f, arena, thread, num_threads)
                elif code == 7:
                    transpose(p, arena, thread, num_threads)
                elif code == 8:
                    copy(p, arena, thread, num_threads)
                elif code == 9:
                    gather(p, arena, constants, thread, num_threads)
                elif code == 10:
                    sparse_rows(p, f, arena, constants, index, short_index, thread, num_threads)
                elif code == 11:
                    dense_rows(p, f, arena, constants, thread, num_threads)
                elif code == 12:
                    softmax(p, arena, thread, num_threads)
                elif code == 13:
                    layer_norm(p, f, arena, constants, thread, num_threads)
                elif code == 14:
                    move(p, arena, thread, num_threads)
                elif code == 15:
                    fill(p, f, arena, thread, num_threads)
                elif code == 16:
                    constant(p, arena, constants, thread, num_threads)
                elif code == 17:
                    scale(p, arena, constants, thread, num_threads)
                elif code == 18:
                    broadcast(p, f, arena, thread, num_threads)
                elif code == 19:
                    cell(p, f, arena, thread, num_threads)
                elif code == 20:
                    lookup_rows(p, f, arena, constants, index, short_index, thread, num_threads)
                elif code == 21:
                    depthwise_flat(
                        p, f, arena, constants, index, short_index, control, thread, num_threads
                    )
                elif code == 22:
                    resize(p, arena, constants, index, short_index, thread, num_threads)
                elif code == 23:
                    group_norm(p, f, arena, constants, thread, num_threads)
                if not wait_for_all(control, num_threads):
                    return
            if not thread:
                return

    return run


run = _make_run(_fingerprint())
