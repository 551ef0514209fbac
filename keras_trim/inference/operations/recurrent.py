"""Recurrent layers."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels import recurrent as kernel
from keras_trim.inference.kernels.elementwise import FUNCTION_CODES
from keras_trim.inference.operations.base import Operation
from keras_trim.inference.operations.dense import FEW_ROWS
from keras_trim.inference.operations.recurrent_layout import Lanes, Rows


@dataclasses.dataclass
class Recurrent(Operation):
    """LSTM, GRU or simple RNN over axis 1 of its input.

    Inputs are x, (batch, time, inputs), then the states if `has_initial_state`, then the mask,
    (batch, time), if `has_mask`: where it is zero, the state stays as it is. Outputs are the output
    of all steps or the last one, and the last states if `return_state`.

    Args:
        kind: String, "lstm", "gru", "gru_reset_before" (`reset_after=False`) or "simple".
        kernel: Array, float32, (inputs, gates * units), gates in Keras's order.
        recurrent_kernel: Array, float32, (units, gates * units).
        bias: Array, float32, (gates * units,).
        recurrent_bias: Array, float32, (gates * units,), added to the product with the state.
        activation, recurrent_activation: Triples of a key of
            `kernels.elementwise.FUNCTION_CODES`, or None, and its two parameters.
        go_backwards, return_sequences, return_state: Booleans, as in Keras.
        has_initial_state, has_mask: Booleans. Which inputs there are.
        zero_output_for_mask: Boolean. Whether the output is zero where the mask is.
        reverse_output: Boolean. Whether the first step's output comes last.
    """

    kind: str
    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray
    recurrent_bias: np.ndarray
    activation: tuple
    recurrent_activation: tuple
    go_backwards: bool = False
    return_sequences: bool = False
    return_state: bool = False
    has_initial_state: bool = False
    has_mask: bool = False
    zero_output_for_mask: bool = False
    reverse_output: bool = False

    @property
    def units(self):
        return self.recurrent_kernel.shape[0]

    def lower(self, builder, x, *others):
        others = [builder.rows(other) for other in others]
        mask = others.pop() if self.has_mask else None
        batch, steps, _ = x.shape
        layout = (Rows if batch <= FEW_ROWS else Lanes)(self, builder, batch, steps)
        if x.size == 0:
            return layout.zeros()
        inputs = layout.project(x)
        states = layout.states(others)
        mask = layout.mask(mask) if self.has_mask else None
        self._emit_steps(builder, layout, inputs, states, mask)
        outputs = [layout.output(states[0])]
        if self.return_state:
            outputs += [layout.state(state) for state in states]
        return outputs

    def _emit_steps(self, builder, layout, inputs, states, mask):
        """Emits all time steps. Their products are one instruction, repeated."""
        units, first, second = self.units, self.recurrent_kernel, None
        kinds = [{"lstm": kernel.LSTM, "simple": kernel.SIMPLE}.get(self.kind, kernel.GRU)]
        sums = layout.sums(first.shape[1])
        candidate, held = layout.place(sums, 2), states[-1]
        if self.kind == "gru_reset_before":
            kinds = [kernel.RESET, kernel.UPDATE]
            first, second = first[:, : 2 * units], first[:, 2 * units :]
            sums, candidate, held = layout.sums(2 * units), layout.sums(units), layout.new_state()
        if self.kind not in ("gru", "gru_reset_before"):
            candidate = sums

        def step(i, kind):
            time = layout.steps - 1 - i if self.go_backwards else i
            place = layout.steps - 1 - i if self.reverse_output else i
            builder.emit(
                "cell",
                [
                    kind, *layout.shape, *layout.input_at(inputs, time), *layout.sums_at(sums),
                    *layout.sums_at(candidate), states[0], held, layout.state_sample,
                    *layout.output_at(place), *layout.mask_at(mask, time), *self._codes,
                ],
                self._factors,
            )  # fmt: skip

        products = []
        for i in range(layout.steps):
            for number, kind in enumerate(kinds):
                if i == 0:
                    weights, source, target = (
                        (first, states[0], sums) if number == 0 else (second, held, candidate)
                    )
                    bias = self.recurrent_bias[number * 2 * units :][: weights.shape[1]]
                    layout.product(weights, np.ascontiguousarray(bias), source, target)
                    products.append(builder.repeater())
                else:
                    products[number]()
                step(i, kind)

    @property
    def _codes(self):
        return [
            kernel.LINEAR if name is None else FUNCTION_CODES[name]
            for name, _, _ in (self.activation, self.recurrent_activation)
        ]

    @property
    def _factors(self):
        return [*self.activation[1:], *self.recurrent_activation[1:]]

    def multiply_adds(self, output_shape, *_):
        """Of one time step, if only the last output is returned, whose shape says no more."""
        steps = int(np.prod(output_shape[:-1]))
        weights = self.kernel, self.recurrent_kernel
        return (
            steps * sum(w.size for w in weights),
            steps * sum(int(np.count_nonzero(w)) for w in weights),
        )
