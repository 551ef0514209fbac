"""Recurrent layers."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations.base import Operation
from keras_trim.inference.ir.validation import (
    require,
    require_integers,
    require_number,
    require_weights,
)
from keras_trim.inference.kernels.elementwise.unary import FUNCTION_CODES

_GATES = {"lstm": 4, "gru": 3, "gru_reset_before": 3, "simple": 1}


@dataclasses.dataclass
class Recurrent(Operation):
    """LSTM, GRU or simple RNN over axis 1 of its input.

    Inputs are x, (batch, time, inputs), then the states if `has_initial_state`, then the mask,
    (batch, time), if `has_mask`. Where the mask is zero, the state does not change. Outputs are
    the output of all steps or of the last one, then the final states if `return_state`.

    Args:
        kind: String, "lstm", "gru", "gru_reset_before" (`reset_after=False`) or "simple".
        kernel: Array, float32, (inputs, gates * units), gates in Keras's order.
        recurrent_kernel: Array, float32, (units, gates * units).
        bias: Array, float32, (gates * units,).
        recurrent_bias: Array, float32, (gates * units,), added to the product with the state.
        activation, recurrent_activation: Triples: a key of
            `kernels.elementwise.unary.FUNCTION_CODES` or None, and its two parameters.
        go_backwards, return_sequences, return_state: Booleans, as in Keras.
        has_initial_state, has_mask: Booleans. Which of the optional inputs are present.
        zero_output_for_mask: Boolean. Whether the output is zero where the mask is.
        reverse_output: Boolean. Whether the first step's output comes last.
    """

    arity = (1, None)

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

    def multiply_adds(self, input_shape, output_shape):
        steps = int(np.prod(input_shape[:-1]))
        weights = self.kernel, self.recurrent_kernel
        return (
            steps * sum(w.size for w in weights),
            steps * sum(int(np.count_nonzero(w)) for w in weights),
        )
