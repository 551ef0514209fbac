"""Runs a program: a table of instructions, one row each, that one compiled function goes through.

Python is called once per inference, not once per layer, and going from one instruction to the next
costs threads less than a microsecond. Instructions name places in one buffer of
activations, the arena, and in tables of constants by their index, so a program can be run on
several arenas at a time.
"""

from numba import njit

from keras_trim.inference.kernels.arithmetic import binary, broadcast
from keras_trim.inference.kernels.compiled import compiled
from keras_trim.inference.kernels.convolution import convolution
from keras_trim.inference.kernels.elementwise import unary
from keras_trim.inference.kernels.flat import windows_flat
from keras_trim.inference.kernels.lines import windows_lines
from keras_trim.inference.kernels.moving import copy, gather, take_input, transpose
from keras_trim.inference.kernels.normalization import group_norm
from keras_trim.inference.kernels.padding import pad, unfold
from keras_trim.inference.kernels.pooling import global_pool
from keras_trim.inference.kernels.recurrent import cell
from keras_trim.inference.kernels.resizing import resize
from keras_trim.inference.kernels.rows import (
    dense_rows,
    layer_norm,
    lookup_rows,
    softmax,
    sparse_rows,
)
from keras_trim.inference.kernels.sliding import sliding
from keras_trim.inference.kernels.strided import constant, fill, move, scale
from keras_trim.inference.kernels.threads import (
    control_alone,
    end_run,
    follow,
    lead,
    take,
    wait_for_helpers,
)
from keras_trim.inference.kernels.windows import windows_padded

OPERANDS = 40  # integers per instruction, its code the first
FACTORS = 4  # float32 per instruction

OPCODES = (
    "convolution", "pad", "windows_padded", "windows_flat", "windows_lines", "unfold", "unary",
    "binary", "global_pool", "transpose", "copy", "gather", "sparse_rows", "dense_rows", "softmax",
    "layer_norm", "move", "fill", "constant", "scale", "broadcast", "cell", "lookup_rows", "resize",
    "group_norm", "take_input", "bands", "sliding",
)  # fmt: skip
CODES = {name: code for code, name in enumerate(OPCODES)}

# The operands of "bands": instructions that a thread runs one after the other, for one band of an
# image after the other, or one branch of a network. They lie behind those of the program, once for
# each thread, as what is between them is in memory of its own. One thread computes a band, which is
# an operand so that the compiler does not know it: it would compile all kernels once more, for one
# thread. The last operands say where those of each band begin.
NUM_BANDS, FIRST_ROW, ROWS_PER_THREAD, ONE, BEGIN = range(1, 6)
MOST_BANDS = OPERANDS - BEGIN - 1


@njit(nogil=True, boundscheck=False)
def _execute(
    p, f, arena, constants, index, short_index, control, thread, num_threads
):  # fmt: skip
    """Takes part in one instruction, until nothing is left of it to take."""
    code = p[0]
    # Those that take work in pieces of their own choice.
    if code == 0:
        convolution(p, f, arena, constants, index, short_index, control, thread, num_threads)
    elif code == 1:
        pad(p, f, arena, index, short_index, control, thread, num_threads)
    elif code == 2:
        windows_padded(p, f, arena, constants, index, control, thread, num_threads)
    elif code == 3:
        windows_flat(p, f, arena, constants, index, short_index, control, thread, num_threads)
    elif code == 4:
        windows_lines(p, f, arena, constants, control, thread, num_threads)
    elif code == 5:
        unfold(p, f, arena, index, control, thread, num_threads)
    elif code == 27:
        sliding(p, f, arena, constants, index, short_index, control, thread, num_threads)
    else:
        # A piece of the others is the share of a thread, whoever computes it.
        part, _ = take(control, num_threads, 1, thread, num_threads)
        while part < num_threads:
            if code == 6:
                unary(p, f, arena, part, num_threads)
            elif code == 7:
                binary(p, f, arena, part, num_threads)
            elif code == 8:
                global_pool(p, f, arena, part, num_threads)
            elif code == 9:
                transpose(p, arena, part, num_threads)
            elif code == 10:
                copy(p, arena, part, num_threads)
            elif code == 11:
                gather(p, arena, constants, part, num_threads)
            elif code == 12:
                sparse_rows(p, f, arena, constants, index, short_index, part, num_threads)
            elif code == 13:
                dense_rows(p, f, arena, constants, part, num_threads)
            elif code == 14:
                softmax(p, arena, part, num_threads)
            elif code == 15:
                layer_norm(p, f, arena, constants, part, num_threads)
            elif code == 16:
                move(p, arena, part, num_threads)
            elif code == 17:
                fill(p, f, arena, part, num_threads)
            elif code == 18:
                constant(p, arena, constants, part, num_threads)
            elif code == 19:
                scale(p, arena, constants, part, num_threads)
            elif code == 20:
                broadcast(p, f, arena, part, num_threads)
            elif code == 21:
                cell(p, f, arena, part, num_threads)
            elif code == 22:
                lookup_rows(p, f, arena, constants, index, short_index, part, num_threads)
            elif code == 23:
                resize(p, arena, constants, index, short_index, part, num_threads)
            elif code == 24:
                group_norm(p, f, arena, constants, part, num_threads)
            elif code == 25:
                take_input(p, arena, part, num_threads)
            part, _ = take(control, num_threads, 1, thread, num_threads)


@njit(nogil=True, boundscheck=False)
def _bands(
    p, program, factors, arena, constants, index, short_index, control, thread, num_threads
):  # fmt: skip
    """Takes part in bands of an image: runs all instructions of one before it takes the next."""
    alone = control_alone(control, thread, num_threads)
    first_row = p[FIRST_ROW] + thread * p[ROWS_PER_THREAD]
    begin, end = take(control, p[NUM_BANDS], 1, thread, num_threads)
    while begin < end:
        for i in range(first_row + p[BEGIN + begin], first_row + p[BEGIN + end]):
            lead(alone, i)
            _execute(
                program[i], factors[i], arena, constants, index, short_index, alone, p[ONE] - 1,
                p[ONE],
            )  # fmt: skip
        begin, end = take(control, p[NUM_BANDS], 1, thread, num_threads)


@compiled
def run(
    program, factors, arena, constants, index, short_index, control, thread, num_threads,
    begin, end,
):  # fmt: skip
    """Runs the instructions from `begin` to `end`, as the first of `num_threads` threads.

    The others, its helpers, take part in them until there has been nothing for a while. What
    `begin_run` began ends here.
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
        if p[0] == 26:
            _bands(
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
