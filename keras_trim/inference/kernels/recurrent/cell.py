"""A time step of a recurrent layer, after its products with weights.

A step is a product (SpMV for few samples, SpMM for many) followed by `cell`, which computes the new
state from the sums and the projected input. Data is stored gate by gate, so that a gate is
contiguous whether `width`, the floats per unit, is 1 or the padded batch size.
"""

import numpy as np

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.elementwise.unary import apply_function
from keras_trim.inference.kernels.instructions import CELL, executes
from keras_trim.inference.kernels.work_sharing import share

AT = CELL.at

LSTM, GRU, RESET, UPDATE, SIMPLE = range(5)
LINEAR = -1  # the code for no activation

_CHUNK = 1024  # floats of a gate that are processed at once; they stay in the first-level cache


@inner
def _activate(code, x, a, b):
    if code >= 0:
        apply_function(code, x, a, b)


@inner
def _add(x, y):
    for i in range(x.size):
        x[i] += y[i]


@inner
def _multiply(x, y):
    for i in range(x.size):
        x[i] *= y[i]


@inner
def _multiply_to(x, y, z):
    for i in range(x.size):
        z[i] = x[i] * y[i]


@inner
def _carry(i, f, candidate, c):
    """candidate = f * c + i * candidate."""
    for k in range(i.size):
        candidate[k] = f[k] * c[k] + i[k] * candidate[k]


@inner
def _mix(z, h, candidate):
    """candidate = z * h + (1 - z) * candidate."""
    for i in range(z.size):
        candidate[i] = z[i] * h[i] + (np.float32(1) - z[i]) * candidate[i]


@inner
def _add_input(arena, sums, z, units, width, z_unit):
    """Adds the projected input of one gate, whose units are `z_unit` floats apart."""
    if z_unit == width:
        _add(arena[sums : sums + units * width], arena[z : z + units * width])
        return
    for u in range(units):
        to = sums + u * width
        _add(arena[to : to + width], arena[z + u * z_unit : z + u * z_unit + width])


@executes(CELL)
@inner
def cell(p, f, arena, thread, num_threads):
    """Computes the state after a time step; each thread computes its own units."""
    first, last = share(p[AT.units], thread, num_threads)
    most = max(_CHUNK // p[AT.width], 1)
    for sample in range(p[AT.samples]):
        begin = first
        while begin < last:
            end = min(begin + most, last)
            _units(p, f, arena, sample, begin, end - begin)
            begin = end


@inner
def _units(p, f, arena, sample, unit, units):
    width, kind = p[AT.width], p[AT.kind]
    size, start, gate = units * width, unit * width, p[AT.units] * width
    s = p[AT.sums] + sample * p[AT.sums_sample] + start
    z_unit = p[AT.input_unit]
    z = p[AT.input] + sample * p[AT.input_sample] + unit * z_unit
    z_gate = p[AT.units] * z_unit
    at = p[AT.state] + sample * p[AT.state_sample] + start
    h = arena[at : at + size]
    at = p[AT.carry] + sample * p[AT.state_sample] + start
    c = arena[at : at + size]
    a, b = f[AT.a], f[AT.b]
    ra, rb = f[AT.recurrent_a], f[AT.recurrent_b]
    activation, recurrent = p[AT.activation], p[AT.recurrent_activation]
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
        new = p[AT.candidate] + sample * p[AT.candidate_sample] + start
        candidate = arena[new : new + size]
        if kind == GRU:
            _multiply(candidate, reset)
        _add_input(arena, new, z + 2 * z_gate, units, width, z_unit)
        _activate(activation, candidate, a, b)
        _mix(update, h, candidate)
    _keep(p, arena, sample, arena[new : new + size], h, units)
    if p[AT.has_output]:
        y = p[AT.y] + sample * p[AT.y_sample] + unit * p[AT.y_unit]
        if p[AT.y_unit] == width and not p[AT.zeroes]:
            arena[y : y + size] = h
            return
        for u in range(units):
            to = y + u * p[AT.y_unit]
            for k in range(width):
                is_zero = p[AT.zeroes] and arena[p[AT.mask] + sample * p[AT.mask_sample] + k] == 0
                arena[to + k] = 0 if is_zero else h[u * width + k]


@inner
def _keep(p, arena, sample, new, state, units):
    """state = new; where the mask is zero, the state stays."""
    if not p[AT.has_mask]:
        state[:] = new
        return
    mask = p[AT.mask] + sample * p[AT.mask_sample]
    for u in range(units):
        for k in range(p[AT.width]):
            if arena[mask + k] != 0:
                state[u * p[AT.width] + k] = new[u * p[AT.width] + k]
