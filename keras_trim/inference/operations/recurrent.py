"""Recurrent layers."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels import recurrent as kernel
from keras_trim.inference.kernels.elementwise import FUNCTION_CODES
from keras_trim.inference.operations.base import (
    Operation,
    require,
    require_integers,
    require_number,
    require_weights,
)
from keras_trim.inference.operations.recurrent_layout import Lanes, Rows
from keras_trim.inference.operations.row_products import FEW_ROWS

_GATES = {"lstm": 4, "gru": 3, "gru_reset_before": 3, "simple": 1}


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
    takes_integers = True  # the mask

    def check(self):
        require(self.kind in _GATES, f"no layer {self.kind!r:.100}")
        require_weights(self.kernel, None, None)
        require_weights(self.recurrent_kernel, None, None)
        require_integers((*self.kernel.shape, *self.recurrent_kernel.shape), 4, 1)
        width = _GATES[self.kind] * self.units
        require_weights(self.kernel, None, width)
        require_weights(self.recurrent_kernel, self.units, width)
        require_weights(self.bias, width)
        require_weights(self.recurrent_bias, width)
        for activation in (self.activation, self.recurrent_activation):
            require(len(activation) == 3, "an activation has a name and two numbers")
            name, *numbers = activation
            require(name is None or name in FUNCTION_CODES, f"no function {name!r:.100}")
            for number in numbers:
                require_number(number)

    @property
    def units(self):
        return self.recurrent_kernel.shape[0]

    def _check_inputs(self, x, others):
        require(
            len(x.shape) == 3 and x.channels == self.kernel.shape[0], "a recurrent layer's inputs"
        )
        batch, steps, _ = x.shape
        states = (2 if self.kind == "lstm" else 1) if self.has_initial_state else 0
        shapes = [(batch, self.units)] * states + [(batch, steps)] * self.has_mask
        require([other.shape for other in others] == shapes, "a recurrent layer's states or mask")
        require(
            all(other.dtype == "float32" for other in (x, *others[:states])),
            "a recurrent layer of integers",
        )

    def lower(self, builder, x, *others):
        self._check_inputs(x, others)
        others = [builder.rows(other) for other in others]
        mask = others.pop() if self.has_mask else None
        batch, steps, _ = x.shape
        builder.require_instructions(2 * steps)
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

    def multiply_adds(self, input_shape, output_shape):
        steps = int(np.prod(input_shape[:-1]))
        weights = self.kernel, self.recurrent_kernel
        return (
            steps * sum(w.size for w in weights),
            steps * sum(int(np.count_nonzero(w)) for w in weights),
        )
