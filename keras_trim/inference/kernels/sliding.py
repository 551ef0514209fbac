"""Convolutions whose sums move in place of the image.

What the taps of one column of a window add to an output lies right below one another. So a row of
weights is multiplied column by column, the last one first, and from one to the next all sums move
by a pixel. Every activation is read where a vector begins, where other kernels copy the image once
for each tap, or read vectors that lie across two cache lines.

The method adds up one tap after the other and shifts what it has, as kn2row does with images
(Anderson et al., "Low-memory GEMM-based convolution algorithms for deep neural networks", 2017),
but in registers, so that it costs an instruction per vector and not a pass over memory.

Lines of the input are whole vectors, and its channels few enough for the first-level cache: they
are copied there a part of the image and a block of channels at a time, or come padded. Sums move on
at the end of their line into its padding.
"""

from numba import njit

from keras_trim.inference.kernels.edges import pack_lines
from keras_trim.inference.kernels.sliding_sums import LAST, MOST_SUMS, multiply_slide
from keras_trim.inference.kernels.threads import share, take
from keras_trim.inference.kernels.vector import FIRST, LANES

_EVEN = 8  # pieces per thread, so many that one more for some of them does not matter

_pack_lines = pack_lines()
(
    _slide_1, _slide_2, _slide_3, _slide_4, _slide_5, _slide_6, _slide_7, _slide_8, _slide_9,
    _slide_10, _slide_11, _slide_12, _slide_13, _slide_14, _slide_15, _slide_16,
) = (multiply_slide(min(vectors, MOST_SUMS)) for vectors in range(1, 17))  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _slide(
    vectors, x, offsets, values, counts, rows, shifts, sums, y, stride, bias, residual, places,
    kept, flags, low, high,
):  # fmt: skip
    """Calls the kernel for as many vectors."""
    a = (
        x, offsets, values, counts, rows, shifts, sums, y, stride, bias, residual, places, kept,
        flags, low, high,
    )  # fmt: skip
    if vectors == 1:
        _slide_1(*a)
    elif vectors == 2:
        _slide_2(*a)
    elif vectors == 3:
        _slide_3(*a)
    elif vectors == 4:
        _slide_4(*a)
    elif vectors == 5:
        _slide_5(*a)
    elif vectors == 6:
        _slide_6(*a)
    elif vectors == 7:
        _slide_7(*a)
    elif vectors == 8:
        _slide_8(*a)
    elif vectors == 9:
        _slide_9(*a)
    elif vectors == 10:
        _slide_10(*a)
    elif vectors == 11:
        _slide_11(*a)
    elif vectors == 12:
        _slide_12(*a)
    elif vectors == 13:
        _slide_13(*a)
    elif vectors == 14:
        _slide_14(*a)
    elif vectors == 15:
        _slide_15(*a)
    else:
        _slide_16(*a)


# The operands of an instruction, by their column in the program.
(
    X, X_SAMPLE, ROW, Y, Y_SAMPLE, PLANE, BATCH, HEIGHT, WIDTH, LINES, OUTPUTS, SHIFTS, BLOCKS,
    STARTS, COUNTS, OFFSETS, VALUES, BIAS, OTHER, OTHER_SAMPLE, SCRATCH, SCRATCH_SIZE, FLAGS,
    PLACES, PACKED, CHANNELS, X_PLANE, X_HEIGHT, X_WIDTH, TOP, LEFT, REACH, INSIDE,
) = range(1, 34)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def sliding(
    p, f, arena, constants, index, short_index, control, thread, num_threads
):  # fmt: skip
    """y = clip(weights * x + bias + residual), see `operations/sliding.py` for its operands.

    Work is split into pieces of up to `LINES` lines, and into rows of weights where these are too
    few for the threads. `PACKED` channels at a time are copied, or none if the input is padded.
    """
    base, outputs, blocks = arena.ctypes.data, p[OUTPUTS], p[BLOCKS]
    parts = (p[HEIGHT] + p[LINES] - 1) // p[LINES]
    splits = num_threads if p[BATCH] * parts < num_threads else 1
    if splits == 1 and p[BATCH] * parts < _EVEN * num_threads:
        # As many pieces for each thread.
        parts = min((parts + num_threads - 1) // num_threads * num_threads, p[HEIGHT])
    pieces = p[BATCH] * parts
    packed = base + 4 * (p[SCRATCH] + thread * p[SCRATCH_SIZE])
    sums = packed + 4 * p[PACKED] * (p[LINES] + p[REACH]) * p[ROW]
    item, end = take(control, pieces * splits, 1, thread, num_threads)
    while item < end:
        split, sample, part = item // pieces, item % pieces // parts, item % parts
        line, last_line = share(p[HEIGHT], part, parts)
        row, last_row = share(outputs, split, splits)
        x = base + 4 * (p[X] + sample * p[X_SAMPLE] + line * p[ROW])
        image = p[X] + sample * p[X_SAMPLE] + (line - p[TOP]) * p[X_WIDTH] - p[LEFT]
        above = max(p[TOP] - line, 0)
        lines = p[LINES] + p[REACH]
        inside = max(min(last_line + p[REACH], p[X_HEIGHT] + p[TOP]) - line - above, 0)
        y = row * p[PLANE] + line * p[WIDTH]
        for turn in range(blocks if row < last_row else 0):
            # A thread that has some rows of y often made as many channels of x: begun with these,
            # it need not wait right away for what lies in the cache of another core.
            block = (blocks * split // splits + turn) % blocks
            if p[PACKED]:
                x, channel = packed, block * p[PACKED]
                _pack_lines(
                    x, base + 4 * (image + channel * p[X_PLANE]), 4 * p[X_PLANE],
                    min(p[PACKED], p[CHANNELS] - channel), 4 * p[X_WIDTH], lines, above, inside,
                    p[ROW] // LANES, short_index.ctypes.data + 2 * p[INSIDE],
                )  # fmt: skip
            flags = FIRST if turn == 0 else 0
            if turn == blocks - 1:
                flags |= LAST | p[FLAGS]
            first = block * outputs + row
            start = index[p[STARTS] + first]
            _slide(
                (last_line - line) * p[ROW] // LANES, x,
                index.ctypes.data + 4 * (p[OFFSETS] + start),
                constants.ctypes.data + 4 * (p[VALUES] + start),
                index.ctypes.data + 4 * (p[COUNTS] + first * p[SHIFTS]), last_row - row, p[SHIFTS],
                sums, base + 4 * (p[Y] + sample * p[Y_SAMPLE] + y), 4 * p[PLANE],
                constants.ctypes.data + 4 * (p[BIAS] + row),
                base + 4 * (p[OTHER] + sample * p[OTHER_SAMPLE] + y),
                index.ctypes.data + 4 * p[PLACES],
                p[WIDTH] - p[ROW] + LANES, flags, f[0], f[1],
            )  # fmt: skip
        item, end = take(control, pieces * splits, 1, thread, num_threads)
