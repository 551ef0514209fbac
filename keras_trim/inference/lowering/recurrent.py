"""Recurrent layers."""

import numpy as np

from keras_trim.inference.ir.operations.recurrent import Recurrent
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.elementwise.unary import FUNCTION_CODES
from keras_trim.inference.kernels.instructions import CELL
from keras_trim.inference.kernels.recurrent import cell as kernel
from keras_trim.inference.lowering.recurrent_layout import Lanes, Rows
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.lowering.spmv import FEW_ROWS


def _check_inputs(op, x, others):
    require(len(x.shape) == 3 and x.channels == op.kernel.shape[0], "a recurrent layer's inputs")
    batch, steps, _ = x.shape
    states = (2 if op.kind == "lstm" else 1) if op.has_initial_state else 0
    shapes = [(batch, op.units)] * states + [(batch, steps)] * op.has_mask
    require([other.shape for other in others] == shapes, "a recurrent layer's states or mask")
    require(
        all(other.dtype == "float32" for other in (x, *others[:states])),
        "a recurrent layer of integers",
    )


@lowers(Recurrent)
def _lower_recurrent(op, builder, x, *others):
    _check_inputs(op, x, others)
    others = [builder.to_nhwc(other) for other in others]
    mask = others.pop() if op.has_mask else None
    batch, steps, _ = x.shape
    builder.require_instructions(2 * steps)
    layout = (Rows if batch <= FEW_ROWS else Lanes)(op, builder, batch, steps)
    if x.size == 0:
        return layout.zeros()
    inputs = layout.project(x)
    states = layout.states(others)
    mask = layout.mask(mask) if op.has_mask else None
    _emit_steps(op, builder, layout, inputs, states, mask)
    outputs = [layout.output(states[0])]
    if op.return_state:
        outputs += [layout.state(state) for state in states]
    return outputs


def _emit_steps(op, builder, layout, inputs, states, mask):
    """Emits all time steps. After the first one, products only repeat its instructions."""
    units, first, second = op.units, op.recurrent_kernel, None
    kinds = [{"lstm": kernel.LSTM, "simple": kernel.SIMPLE}.get(op.kind, kernel.GRU)]
    sums = layout.sums(first.shape[1])
    candidate, held = layout.place(sums, 2), states[-1]
    if op.kind == "gru_reset_before":
        kinds = [kernel.RESET, kernel.UPDATE]
        first, second = first[:, : 2 * units], first[:, 2 * units :]
        sums, candidate, held = layout.sums(2 * units), layout.sums(units), layout.new_state()
    if op.kind not in ("gru", "gru_reset_before"):
        candidate = sums

    def step(i, kind):
        time = layout.steps - 1 - i if op.go_backwards else i
        place = layout.steps - 1 - i if op.reverse_output else i
        samples, units, width = layout.shape
        builder.emit(
            CELL, kind=kind, samples=samples, units=units, width=width,
            **layout.input_at(inputs, time), **layout.sums_at("sums", sums),
            **layout.sums_at("candidate", candidate), state=states[0], carry=held,
            state_sample=layout.state_sample, **layout.output_at(place),
            **layout.mask_at(mask, time), **_activations(op),
        )  # fmt: skip

    products = []
    for i in range(layout.steps):
        for number, kind in enumerate(kinds):
            if i == 0:
                weights, source, target = (
                    (first, states[0], sums) if number == 0 else (second, held, candidate)
                )
                bias = op.recurrent_bias[number * 2 * units :][: weights.shape[1]]
                layout.product(weights, np.ascontiguousarray(bias), source, target)
                products.append(builder.repeater())
            else:
                products[number]()
            step(i, kind)


def _activations(op):
    """Returns the operands and factors of both activations."""
    (name, a, b), (recurrent_name, recurrent_a, recurrent_b) = (
        op.activation,
        op.recurrent_activation,
    )
    code, recurrent_code = (
        kernel.LINEAR if known is None else FUNCTION_CODES[known]
        for known in (name, recurrent_name)
    )
    return {
        "activation": code,
        "recurrent_activation": recurrent_code,
        "a": a,
        "b": b,
        "recurrent_a": recurrent_a,
        "recurrent_b": recurrent_b,
    }
