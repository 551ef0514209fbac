"""What a recurrent layer does at each time step once its products with weights are known.

A step of the layer is a product (`rows.py` for few samples, `convolution.py` for many), and `cell`,
which goes from sums and the input's part to the new state. Everything lies gate after gate, so that
a gate is one stretch of memory whether `WIDTH`, the floats per unit, is 1 or the padded batch size.
"""

import numpy as np
from numba import njit

from keras_trim.inference.kernels.elementwise import apply_function
from keras_trim.inference.kernels.threads import share

LSTM, GRU, RESET, UPDATE, SIMPLE = range(5)
LINEAR = -1  # the code of no activation

# Places of the input's part (Z), the sums (S, those of a GRU's candidate in CANDIDATE), the state
# (H, C; for RESET, C is where `r * h` goes), the output and the mask. *_SAMPLE: floats to the next
# sample.
(
    KIND, SAMPLES, UNITS, WIDTH, Z, Z_SAMPLE, Z_UNIT, S, S_SAMPLE, CANDIDATE, CANDIDATE_SAMPLE, H,
    C, STATE_SAMPLE, Y, Y_SAMPLE, Y_UNIT, HAS_OUTPUT, MASK, MASK_SAMPLE, HAS_MASK, ZEROES,
    ACTIVATION, RECURRENT_ACTIVATION,
) = range(1, 25)  # fmt: skip
_CHUNK = 1024  # floats of a gate that are worked on at once; they stay in the first-level cache


@njit(nogil=True, boundscheck=False)
def _activate(code, x, a, b):
    if code >= 0:
        apply_function(code, x, a, b)


@njit(nogil=True, boundscheck=False)
def _add(x, y):
    for i in range(x.size):
        x[i] += y[i]


@njit(nogil=True, boundscheck=False)
def _multiply(x, y):
    for i in range(x.size):
        x[i] *= y[i]


@njit(nogil=True, boundscheck=False)
def _multiply_to(x, y, z):
    for i in range(x.size):
        z[i] = x[i] * y[i]


@njit(nogil=True, boundscheck=False)
def _carry(i, f, candidate, c):
    """candidate = f * c + i * candidate."""
    for k in range(i.size):
        candidate[k] = f[k] * c[k] + i[k] * candidate[k]


@njit(nogil=True, boundscheck=False)
def _mix(z, h, candidate):
    """candidate = z * h + (1 - z) * candidate."""
    for i in range(z.size):
        candidate[i] = z[i] * h[i] + (np.float32(1) - z[i]) * candidate[i]


@njit(nogil=True, boundscheck=False)
def _add_input(arena, sums, z, units, width, z_unit):
    """Adds the input's part of one gate, whose units are `z_unit` floats apart."""
    if z_unit == width:
        _add(arena[sums : sums + units * width], arena[z : z + units * width])
        return
    for u in range(units):
        to = sums + u * width
        _add(arena[to : to + width], arena[z + u * z_unit : z + u * z_unit + width])


@njit(nogil=True, boundscheck=False)
def cell(p, f, arena, thread, num_threads):
    """Computes the state after a time step; each thread for units of its own."""
    first, last = share(p[UNITS], thread, num_threads)
    most = max(_CHUNK // p[WIDTH], 1)
    for sample in range(p[SAMPLES]):
        begin = first
        while begin < last:
            end = min(begin + most, last)
            _units(p, f, arena, sample, begin, end - begin)
            begin = end


@njit(nogil=True, boundscheck=False)
def _units(p, f, arena, sample, unit, units):
    width, kind = p[WIDTH], p[KIND]
    size, start, gate = units * width, unit * width, p[UNITS] * width
    s = p[S] + sample * p[S_SAMPLE] + start
    z_unit = p[Z_UNIT]
    z = p[Z] + sample * p[Z_SAMPLE] + unit * z_unit
    z_gate = p[UNITS] * z_unit
    at = p[H] + sample * p[STATE_SAMPLE] + start
    h = arena[at : at + size]
    at = p[C] + sample * p[STATE_SAMPLE] + start
    c = arena[at : at + size]
    a, b, ra, rb = f[0], f[1], f[2], f[3]
    activation, recurrent = p[ACTIVATION], p[RECURRENT_ACTIVATION]
    new = s
    if kind == LSTM:
        for g in range(4):
            _add_input(arena, s + g * gate, z + g * z_gate, units, width, z_unit)
        i, forget = arena[s : s + size], arena[s + gate : s + gate + size]
        carry = arena[s + 2 * gate : s + 2 * gate + size]
        out = arena[s + 3 * gate : s + 3 * gate + size]
        _activate(recurrent, i, ra, rb)
        _activate(recurrent, forget, ra, rb)
        _activate(activation, carry, a, b)
        _activate(recurrent, out, ra, rb)
        _carry(i, forget, carry, c)
        i[:] = carry
        _activate(activation, i, a, b)
        _multiply(i, out)
        _keep(p, arena, sample, carry, c, units)
    elif kind == SIMPLE:
        _add_input(arena, s, z, units, width, z_unit)
        _activate(activation, arena[s : s + size], a, b)
    else:
        update, reset = arena[s : s + size], arena[s + gate : s + gate + size]
        if kind != UPDATE:
            _add_input(arena, s, z, units, width, z_unit)
            _add_input(arena, s + gate, z + z_gate, units, width, z_unit)
            _activate(recurrent, update, ra, rb)
            _activate(recurrent, reset, ra, rb)
        if kind == RESET:
            _multiply_to(reset, h, c)
            return
        new = p[CANDIDATE] + sample * p[CANDIDATE_SAMPLE] + start
        candidate = arena[new : new + size]
        if kind == GRU:
            _multiply(candidate, reset)
        _add_input(arena, new, z + 2 * z_gate, units, width, z_unit)
        _activate(activation, candidate, a, b)
        _mix(update, h, candidate)
    _keep(p, arena, sample, arena[new : new + size], h, units)
    if p[HAS_OUTPUT]:
        y = p[Y] + sample * p[Y_SAMPLE] + unit * p[Y_UNIT]
        if p[Y_UNIT] == width and not p[ZEROES]:
            arena[y : y + size] = h
            return
        for u in range(units):
            to = y + u * p[Y_UNIT]
            for k in range(width):
                is_zero = p[ZEROES] and arena[p[MASK] + sample * p[MASK_SAMPLE] + k] == 0
                arena[to + k] = 0 if is_zero else h[u * width + k]


@njit(nogil=True, boundscheck=False)
def _keep(p, arena, sample, new, state, units):
    """state = new, but where the mask is zero the state stays."""
    if not p[HAS_MASK]:
        state[:] = new
        return
    mask = p[MASK] + sample * p[MASK_SAMPLE]
    for u in range(units):
        for k in range(p[WIDTH]):
            if arena[mask + k] != 0:
                state[u * p[WIDTH] + k] = new[u * p[WIDTH] + k]
