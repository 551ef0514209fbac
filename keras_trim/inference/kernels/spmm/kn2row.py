"""kn2row: convolutions whose sums move in place of the image.

All taps in one column of a window read the same column of the image. So a row of weights is
multiplied one window column at a time, the last one first, and all sums move by a pixel in between.
Every read is an aligned vector. Other kernels copy the image once per tap, or read vectors that
straddle two cache lines.

Like kn2row (Anderson et al., "Low-memory GEMM-based convolution algorithms for deep neural
networks", 2017), the method adds up one tap after another and shifts the partial sums. It shifts
them in registers, which costs an instruction per vector and not a pass over memory.

Lines of the input are whole vectors, and the channels of a pass fit the first-level cache. The
input is either padded beforehand, or a part of the image is packed one block of channels at a time.
The padding of each line gives its sums room to move.
"""

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import KN2ROW, executes
from keras_trim.inference.kernels.lane_masks import pack_lines
from keras_trim.inference.kernels.llvm import FIRST, LANES
from keras_trim.inference.kernels.spmm.kn2row_micro_kernel import (
    LAST,
    MOST_SUMS,
    kn2row_micro_kernel,
)
from keras_trim.inference.kernels.switch import switch
from keras_trim.inference.kernels.work_sharing import share, take

AT = KN2ROW.at

_EVEN = 8  # pieces per thread; with more, an uneven split does not matter

_pack_lines = pack_lines()
_slide = switch(
    "x, offsets, values, counts, rows, shifts, sums, y, stride, bias, residual, places, kept, "
    "flags, low, high",
    {vectors: kn2row_micro_kernel(vectors) for vectors in range(1, MOST_SUMS + 1)},
)  # `_slide(vectors, ...)` runs the micro-kernel for `vectors` vectors of sums


@executes(KN2ROW)
@inner
def kn2row(
    p, f, arena, constants, index, short_index, control, thread, num_threads
):  # fmt: skip
    """y = clip(weights * x + bias + residual); see `instructions.py` for its operands.

    Splits the work into pieces of up to `lines` lines and, if these are too few for the threads,
    into rows of weights. Packs `packed` channels at a time; 0 means that the input is padded.
    """
    base, outputs, blocks = arena.ctypes.data, p[AT.outputs], p[AT.blocks]
    parts = (p[AT.height] + p[AT.lines] - 1) // p[AT.lines]
    splits = num_threads if p[AT.batch] * parts < num_threads else 1
    if splits == 1 and p[AT.batch] * parts < _EVEN * num_threads:
        # The same number of pieces for each thread.
        parts = min((parts + num_threads - 1) // num_threads * num_threads, p[AT.height])
    pieces = p[AT.batch] * parts
    packed = base + 4 * (p[AT.scratch] + thread * p[AT.scratch_size])
    sums = packed + 4 * p[AT.packed] * (p[AT.lines] + p[AT.reach]) * p[AT.row]
    item, end = take(control, pieces * splits, 1, thread, num_threads)
    while item < end:
        split, sample, part = item // pieces, item % pieces // parts, item % parts
        line, last_line = share(p[AT.height], part, parts)
        row, last_row = share(outputs, split, splits)
        x = base + 4 * (p[AT.x] + sample * p[AT.x_sample] + line * p[AT.row])
        image = p[AT.x] + sample * p[AT.x_sample] + (line - p[AT.top]) * p[AT.x_width] - p[AT.left]
        above = max(p[AT.top] - line, 0)
        lines = p[AT.lines] + p[AT.reach]
        inside = max(min(last_line + p[AT.reach], p[AT.x_height] + p[AT.top]) - line - above, 0)
        y = row * p[AT.plane] + line * p[AT.width]
        for turn in range(blocks if row < last_row else 0):
            # A thread that computes some rows of y often made the same share of x's channels.
            # Starting with these, it does not have to wait for another core's cache right away.
            block = (blocks * split // splits + turn) % blocks
            if p[AT.packed]:
                x, channel = packed, block * p[AT.packed]
                _pack_lines(
                    x, base + 4 * (image + channel * p[AT.x_plane]), 4 * p[AT.x_plane],
                    min(p[AT.packed], p[AT.channels] - channel), 4 * p[AT.x_width], lines, above,
                    inside,
                    p[AT.row] // LANES, short_index.ctypes.data + 2 * p[AT.inside],
                )  # fmt: skip
            flags = FIRST if turn == 0 else 0
            if turn == blocks - 1:
                flags |= LAST | p[AT.flags]
            first = block * outputs + row
            start = index[p[AT.starts] + first]
            _slide(
                (last_line - line) * p[AT.row] // LANES, x,
                index.ctypes.data + 4 * (p[AT.offsets] + start),
                constants.ctypes.data + 4 * (p[AT.values] + start),
                index.ctypes.data + 4 * (p[AT.counts] + first * p[AT.shifts]), last_row - row,
                p[AT.shifts],
                sums, base + 4 * (p[AT.y] + sample * p[AT.y_sample] + y), 4 * p[AT.plane],
                constants.ctypes.data + 4 * (p[AT.bias] + row),
                base + 4 * (p[AT.residual] + sample * p[AT.residual_sample] + y),
                index.ctypes.data + 4 * p[AT.places],
                p[AT.width] - p[AT.row] + LANES, flags, f[AT.low], f[AT.high],
            )  # fmt: skip
        item, end = take(control, pieces * splits, 1, thread, num_threads)
