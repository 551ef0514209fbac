"""Copies of planes: padding, strides split into phases, im2col.

A convolution with stride s reads every s-th row and column. Its input is copied into s * s planes
per channel, the *phases*: one for each remainder of row and column modulo s. Within each phase the
convolution has stride 1.
"""

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import IM2COL, PAD, executes
from keras_trim.inference.kernels.layout.copies import copy_floats, fill_vectors, split_pixels
from keras_trim.inference.kernels.layout.expand_compress import IS_AVAILABLE as HAS_EXPAND
from keras_trim.inference.kernels.layout.expand_compress import expand_rows
from keras_trim.inference.kernels.planes import place
from keras_trim.inference.kernels.work_sharing import take

_PAD, _IM2COL = PAD.at, IM2COL.at

_TOGETHER = 4  # planes that a thread takes at a time

_expand_rows = expand_rows() if HAS_EXPAND else None
_copy, _copy_image = split_pixels(1, 1), split_pixels(3, 1)
_halve, _halve_image = split_pixels(1, 2), split_pixels(3, 2)


@inner
def pad_plane(
    arena, x, height, width, y, plane, rows, row, top, left, stride_y, stride_x, input_dilation_y,
    input_dilation_x, phases_y, phases_x, value,
):  # fmt: skip
    """Copies one plane into `phases_y * phases_x` planes of `rows` x `row`, padded with `value`.

    An input dilation > 1 spaces pixels that far apart, with zeros between (transposed convolution).
    """
    for phase in range(phases_y):
        _pad_phase(
            arena, x, height, width, 1, y + phase * phases_x * plane, 0, plane, rows, row, top,
            left, stride_y, stride_x, input_dilation_y, input_dilation_x, phase, phases_x, value,
        )  # fmt: skip


@inner
def _pad_phase(
    arena, x, height, width, channels, y, distance, plane, rows, row, top, left, stride_y, stride_x,
    input_dilation_y, input_dilation_x, phase, phases_x, value,
):  # fmt: skip
    """Computes the padded planes of one vertical phase, which have every `stride_y`-th row.

    The pixels of x have 1 or 3 channels. The channels of y are `distance` floats apart.

    Stores whole vectors. After the pixels of a row they write its padding, and the padding at the
    beginning of the next row. The next row overwrites the excess, so planes need room for `left`
    and LANES floats after their last row.
    """
    base = arena.ctypes.data
    is_plain = stride_x == 1 and input_dilation_x == 1 and left >= 0
    is_halved = (
        stride_x == 2 and left >= 0 and (phases_x == 2 or left == 0) and input_dilation_x == 1
    )
    for channel in range(channels):
        for phase_x in range(phases_x):
            start = y + channel * distance + phase_x * plane
            fill_vectors(base + 4 * start, max(left, 0), value)
    for j in range(rows):
        source_row = j * stride_y + phase - top
        target = y + j * row
        source = x + source_row // input_dilation_y * width * channels
        if (
            source_row < 0
            or source_row > (height - 1) * input_dilation_y
            or source_row % input_dilation_y
        ):
            for channel in range(channels):
                for phase_x in range(phases_x):
                    start = target + channel * distance + phase_x * plane
                    fill_vectors(base + 4 * start, row + max(left, 0), value)
        elif is_plain:
            a = (
                base + 4 * (target + left), 0, 4 * distance, base + 4 * source,
                min(width, row - left), 0, row, value,
            )  # fmt: skip
            if channels == 1:
                _copy(*a)
            else:
                _copy_image(*a)
        elif is_halved:
            # With an odd number of padding columns, odd pixels go to the first phase. With a single
            # phase, both go to the same place, and the even ones win. Pixels that no window reads
            # are left out, because they would land in the padding of the next row.
            even, odd = left // 2, (left + 1) // 2
            to_even = target + even + (plane if left % 2 else 0)
            to_odd = target + odd + (0 if left % 2 or phases_x == 1 else plane)
            a = (
                base + 4 * to_even, base + 4 * to_odd, 4 * distance, base + 4 * source,
                min((width + 1) // 2, row - even), min(width // 2, row - odd), row, value,
            )  # fmt: skip
            if channels == 1:
                _halve(*a)
            else:
                _halve_image(*a)
        else:
            for channel in range(channels):
                for phase_x in range(phases_x):
                    for i in range(row):
                        column = i * stride_x + phase_x - left
                        at = target + channel * distance + phase_x * plane + i
                        if column < 0 or column > (width - 1) * input_dilation_x:
                            arena[at] = value
                        elif column % input_dilation_x:
                            arena[at] = 0
                        else:
                            pixel = column // input_dilation_x
                            arena[at] = arena[source + pixel * channels + channel]


@executes(PAD)
@inner
def pad(p, f, arena, index, short_index, control, thread, num_threads):
    """Pads all planes of a batch, with `row_tables` if `vectors` is not 0.

    An `x_plane` of 0 stands for NHWC, with three channels.
    """
    if p[_PAD.x_plane] == 0:
        _pad_images(p, f, arena, control, thread, num_threads)
        return
    base, planes = arena.ctypes.data, p[_PAD.batch] * p[_PAD.channels]
    begin, end = take(control, planes, _TOGETHER, thread, num_threads)
    while begin < end:
        for item in range(begin, end):
            x, y, _ = place(p, item, 1)
            if HAS_EXPAND and p[_PAD.vectors]:
                _expand_rows(
                    base + 4 * y, base + 4 * x, index.ctypes.data + 4 * p[_PAD.starts],
                    short_index.ctypes.data + 2 * p[_PAD.masks], p[_PAD.vectors], f[_PAD.value],
                )  # fmt: skip
                continue
            pad_plane(
                arena, x, p[_PAD.height], p[_PAD.width], y, p[_PAD.phase_plane], p[_PAD.rows],
                p[_PAD.row], p[_PAD.top], p[_PAD.left],
                p[_PAD.stride_y], p[_PAD.stride_x], p[_PAD.input_dilation_y],
                p[_PAD.input_dilation_x], p[_PAD.phases_y], p[_PAD.phases_x], f[_PAD.value],
            )  # fmt: skip
        begin, end = take(control, planes, _TOGETHER, thread, num_threads)


@inner
def _pad_images(p, f, arena, control, thread, num_threads):
    item, end = take(control, p[_PAD.batch] * p[_PAD.phases_y], 1, thread, num_threads)
    while item < end:
        sample, phase = item // p[_PAD.phases_y], item % p[_PAD.phases_y]
        y = p[_PAD.y] + sample * p[_PAD.y_sample] + phase * p[_PAD.phases_x] * p[_PAD.phase_plane]
        _pad_phase(
            arena, p[_PAD.x] + sample * p[_PAD.x_sample], p[_PAD.height], p[_PAD.width],
            p[_PAD.channels], y, p[_PAD.y_plane],
            p[_PAD.phase_plane], p[_PAD.rows], p[_PAD.row], p[_PAD.top], p[_PAD.left],
            p[_PAD.stride_y], p[_PAD.stride_x], p[_PAD.input_dilation_y],
            p[_PAD.input_dilation_x], phase, p[_PAD.phases_x], f[_PAD.value],
        )  # fmt: skip
        item, end = take(control, p[_PAD.batch] * p[_PAD.phases_y], 1, thread, num_threads)


@executes(IM2COL)
@inner
def im2col(p, f, arena, index, control, thread, num_threads):
    """y[c * taps + t] = the pixels that tap t of a window reads from the padded x[c].

    Rows of x are `width` floats apart.
    """
    base, planes = arena.ctypes.data, p[_IM2COL.batch] * p[_IM2COL.channels] * p[_IM2COL.taps]
    begin, end = take(control, planes, _TOGETHER, thread, num_threads)
    while begin < end:
        for item in range(begin, end):
            x, y, plane = place(p, item, p[_IM2COL.taps])
            x += index[p[_IM2COL.offsets] + plane % p[_IM2COL.taps]]
            for i in range(p[_IM2COL.out_height]):
                copy_floats(
                    base + 4 * (y + i * p[_IM2COL.out_width]),
                    base + 4 * (x + i * p[_IM2COL.width]),
                    p[_IM2COL.out_width],
                )
        begin, end = take(control, planes, _TOGETHER, thread, num_threads)
