"""Moves and arithmetic over tensors of any layout, with strides over up to eight axes.

Sizes, and a stride per axis and tensor, describe permutations, slices, padding, repetition and
broadcasting alike. `lowering/strided.py` orders the axes so that the last one is contiguous in
the output if possible.
"""

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import AXES, CONSTANT, FILL, MOVE, SCALE, executes
from keras_trim.inference.kernels.layout.copies import copy_floats
from keras_trim.inference.kernels.work_sharing import share

_MOVE, _FILL, _CONSTANT, _SCALE = MOVE.at, FILL.at, CONSTANT.at, SCALE.at


@executes(MOVE)
@inner
def move(p, arena, thread, num_threads):
    """y[i] = x[i] for all indices i."""
    lines = 1
    for axis in range(AXES - 1):
        lines *= p[_MOVE.sizes + axis]
    begin, end = share(lines, thread, num_threads)
    count = p[_MOVE.sizes + AXES - 1]
    x_step, y_step = p[_MOVE.x_strides + AXES - 1], p[_MOVE.y_strides + AXES - 1]
    base = arena.ctypes.data
    for line in range(begin, end):
        left, x, y = line, p[_MOVE.x], p[_MOVE.y]
        for axis in range(AXES - 2, -1, -1):
            size = p[_MOVE.sizes + axis]
            if size > 1:
                rest = left // size
                i = left - rest * size
                left = rest
                x += i * p[_MOVE.x_strides + axis]
                y += i * p[_MOVE.y_strides + axis]
        if x_step == 1 and y_step == 1:
            copy_floats(base + 4 * y, base + 4 * x, count)
        else:
            for i in range(count):
                arena[y + i * y_step] = arena[x + i * x_step]


@executes(FILL)
@inner
def fill(p, f, arena, thread, num_threads):
    """y[:] = value."""
    begin, end = share(p[_FILL.size], thread, num_threads)
    arena[p[_FILL.y] + begin : p[_FILL.y] + end] = f[_FILL.value]


@executes(CONSTANT)
@inner
def constant(p, arena, constants, thread, num_threads):
    """y[:] = constant[:]."""
    begin, end = share(p[_CONSTANT.size], thread, num_threads)
    arena[p[_CONSTANT.y] + begin : p[_CONSTANT.y] + end] = constants[
        p[_CONSTANT.constant] + begin : p[_CONSTANT.constant] + end
    ]


@executes(SCALE)
@inner
def scale(p, arena, constants, thread, num_threads):
    """y[i, :] = x[i, :] * scale[:] + shift[:]; for planes, with index [i % channels]."""
    width, channels = p[_SCALE.width], p[_SCALE.channels]
    begin, end = share(p[_SCALE.rows], thread, num_threads)
    for i in range(begin, end):
        x = arena[p[_SCALE.x] + i * width : p[_SCALE.x] + (i + 1) * width]
        y = arena[p[_SCALE.y] + i * width : p[_SCALE.y] + (i + 1) * width]
        if channels:
            a, b = (
                constants[p[_SCALE.scale] + i % channels],
                constants[p[_SCALE.shift] + i % channels],
            )
            for j in range(width):
                y[j] = x[j] * a + b
        else:
            a, b = (
                constants[p[_SCALE.scale] : p[_SCALE.scale] + width],
                constants[p[_SCALE.shift] : p[_SCALE.shift] + width],
            )
            for j in range(width):
                y[j] = x[j] * a[j] + b[j]
