"""Windows that move over planes, each plane for itself: depthwise convolutions and pooling.

Here any window, on a copy of each plane with its padding written out, in a scratch buffer that
stays in cache. For the windows of most networks `lines.py` and `flat.py` are faster.
"""

from numba import njit

from keras_trim.inference.kernels.copies import copy_floats
from keras_trim.inference.kernels.padding import pad_plane
from keras_trim.inference.kernels.planes import BATCH, CHANNELS, HEIGHT, OPERANDS, WIDTH, place
from keras_trim.inference.kernels.register_tile import multiply_add
from keras_trim.inference.kernels.scalars import clip
from keras_trim.inference.kernels.threads import take
from keras_trim.inference.kernels.totals import window
from keras_trim.inference.kernels.vector import CLIP, FIRST, LANES

KINDS = ("product", "sum", "maximum")  # what is made of a window
PRODUCT, SUM, MAXIMUM = range(3)

# The operands of all three ways. `VALUES` are the weights of a product, `NUM_VALUES` for each
# output, or what sums are multiplied with, one number per pixel. Factors are what the output is
# clipped to, and what is outside of the image.
(
    MULTIPLIER, OUT_HEIGHT, OUT_WIDTH, TOP, LEFT, STRIDE_Y, STRIDE_X, KIND, TAPS, VALUES,
    NUM_VALUES, BIAS, FLAGS,
) = range(OPERANDS + 1, OPERANDS + 14)  # fmt: skip
WINDOW_OPERANDS = OPERANDS + 13
LOW, HIGH, OUTSIDE = range(3)

(
    ROWS, ROW, OFFSETS, SCRATCH, SCRATCH_SIZE, PADDED_PLANE, PHASES_Y, PHASES_X, TOGETHER,
) = range(WINDOW_OPERANDS + 1, WINDOW_OPERANDS + 10)  # fmt: skip

_product, _sum, _maximum = multiply_add(1, 1), window("sum"), window("maximum")


@njit(nogil=True, boundscheck=False)
def windows_padded(p, f, arena, constants, index, control, thread, num_threads):
    """y[c * multiplier + m] = what is made of the windows of x[c].

    Some channels are padded before they are computed: a load right behind a store of part of what
    it loads would wait for it.
    """
    planes, together = p[BATCH] * p[CHANNELS], p[TOGETHER]
    phases = p[PHASES_Y] * p[PHASES_X] * p[PADDED_PLANE]
    scratch = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    last_line = scratch + together * phases
    begin, end = take(control, planes, together, thread, num_threads)
    while begin < end:
        for i in range(end - begin):
            x, _, _ = place(p, begin + i, 1)
            pad_plane(
                arena, x, p[HEIGHT], p[WIDTH], scratch + i * phases, p[PADDED_PLANE], p[ROWS],
                p[ROW], p[TOP], p[LEFT], p[STRIDE_Y], p[STRIDE_X], 1, 1, p[PHASES_Y], p[PHASES_X],
                f[OUTSIDE],
            )  # fmt: skip
        for i in range(end - begin):
            for m in range(p[MULTIPLIER]):
                _, y, out = place(p, (begin + i) * p[MULTIPLIER] + m, p[MULTIPLIER])
                _plane(p, f, arena, constants, index, scratch + i * phases, y, out, last_line)
        begin, end = take(control, planes, together, thread, num_threads)


@njit(nogil=True, boundscheck=False)
def _plane(p, f, arena, constants, index, x, y, out, last_line):
    """Computes one plane of output from a padded plane of input.

    Vectors are whole: what is too much of a line is overwritten by the next line. The last lines
    have none behind them: they are computed in scratch memory, and copied.
    """
    base, width, height = arena.ctypes.data, p[OUT_WIDTH], p[OUT_HEIGHT]
    values = constants.ctypes.data + 4 * (p[VALUES] + out * p[NUM_VALUES])
    for line in range(height):
        is_copied = width % LANES != 0 and (height - line - 1) * width < LANES
        target = last_line if is_copied else y + line * width
        for column in range(0, width, LANES):
            _vector(
                p[KIND], base + 4 * (x + line * p[ROW] + column),
                index.ctypes.data + 4 * p[OFFSETS], p[TAPS], values,
                constants.ctypes.data + 4 * (p[BIAS] + out), base + 4 * (target + column),
                FIRST | (p[FLAGS] & CLIP), f[LOW], f[HIGH],
            )  # fmt: skip
        if is_copied:
            copy_floats(base + 4 * (y + line * width), base + 4 * target, width)
    if p[KIND] == SUM:
        for i in range(y, y + width * height):
            arena[i] *= constants[p[VALUES] + i - y]
    if p[KIND] != PRODUCT and p[FLAGS] & CLIP:
        for i in range(y, y + width * height):
            arena[i] = clip(arena[i], f[LOW], f[HIGH])


@njit(nogil=True, boundscheck=False)
def _vector(kind, x, offsets, taps, values, bias, y, flags, low, high):
    if kind == PRODUCT:  # a group of one row, whose numbers lie behind the offsets
        _product(
            x, offsets, values, offsets + 4 * taps, 1, 0, 0, y, 0, bias, 0, flags, low, high,
        )  # fmt: skip
    elif kind == MAXIMUM:
        _maximum(x, offsets, taps, y)
    else:
        _sum(x, offsets, taps, y)
