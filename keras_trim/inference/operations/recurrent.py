"""Recurrent layers."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels import recurrent as kernel
from keras_trim.inference.kernels.elementwise import FUNCTION_CODES
from keras_trim.inference.operations.base import Operation
from keras_trim.inference.operations.convolution import emit_product
from keras_trim.inference.operations.dense import FEW_ROWS, Dense, emit_row_product
from keras_trim.inference.packing import Columns
from keras_trim.inference.plan import Place, Tensor, round_up

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

    @property
    def units(self):
        return self.recurrent_kernel.shape[0]

    def lower(self, builder, x, *others):
        others = [builder.rows(other) for other in others]
        mask = others.pop() if self.has_mask else None
        batch, steps, _ = x.shape
        layout = (_Rows if batch <= FEW_ROWS else _Lanes)(self, builder, batch, steps)
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


class _Layout:
    """Where the tensors of a layer lie: which differs with the number of samples.

    Args:
        layer: `Recurrent`.
        builder: `plan.Builder`.
        batch, steps: Integers.
    """

    def __init__(self, layer, builder, batch, steps):
        self.layer, self.builder, self.batch, self.steps = layer, builder, batch, steps
        self.units, self.gates = layer.units, _GATES[layer.kind]
        self.sequence = None  # the outputs of all steps
        if layer.return_sequences:
            self.sequence = self.new_sequence()

    def zeros(self):
        """The outputs for an empty input."""
        shape = (self.batch, self.units)
        sequence = (self.batch, self.steps, self.units)
        tensors = [Tensor(sequence if self.layer.return_sequences else shape, "rows")]
        if self.layer.return_state:
            tensors += [Tensor(shape, "rows") for _ in range(self.num_states)]
        for tensor in tensors:
            self.fill(tensor)
        return tensors

    @property
    def num_states(self):
        return 2 if self.layer.kind == "lstm" else 1

    def fill(self, tensor):
        if tensor.size:
            self.builder.emit("fill", [tensor, tensor.size], [0.0])

    def states(self, given):
        """Tensors of the state, which the steps change."""
        states = [self.new_state() for _ in range(self.num_states)]
        for i, state in enumerate(states):
            self.fill(state)
            if given:
                self.copy_state(given[i], state)
        return states

    def mask_at(self, mask, time):
        if mask is None:
            return 0, 0, 0, 0
        return *self.mask_place(mask, time), 1, int(self.layer.zero_output_for_mask)


class _Rows(_Layout):
    """Sample after sample: for few of them."""

    @property
    def shape(self):
        return self.batch, self.units, 1

    @property
    def state_sample(self):
        return self.units

    def project(self, x):
        projection = Dense(self.layer.kernel, self.layer.bias)
        return self.builder.rows(projection.lower(self.builder, x))

    def input_at(self, inputs, time):
        width = self.gates * self.units
        return Place(inputs, time * width), self.steps * width, 1

    def sums(self, outputs):
        return Tensor((self.batch, outputs), "rows")

    def place(self, sums, gate):
        return Place(sums, gate * self.units)

    def sums_at(self, sums):
        tensor = sums.tensor if isinstance(sums, Place) else sums
        return sums, tensor.sample_size

    def product(self, weights, bias, state, sums):
        emit_row_product(self.builder, weights, bias, state, sums, self.batch)

    def new_state(self):
        return Tensor((self.batch, self.units), "rows")

    def new_sequence(self):
        return Tensor((self.batch, self.steps, self.units), "rows")

    def copy_state(self, given, state):
        self.builder.emit("copy", [given, state, 1, 0, 0, 1, given.size, 0, 0])

    def output_at(self, step):
        if self.sequence is None:
            return 0, 0, 0, 0
        return Place(self.sequence, step * self.units), self.steps * self.units, 1, 1

    def output(self, state):
        return state if self.sequence is None else self.sequence

    def state(self, state):
        return state

    def mask(self, mask):
        floats = Tensor(mask.shape, "rows")
        self.builder.host(lambda a, out: np.copyto(out, a != 0), [mask], [floats])
        return floats

    def mask_place(self, mask, time):
        return Place(mask, time), self.steps


class _Lanes(_Layout):
    """Samples in the lanes of vectors, (..., samples), their number rounded up."""

    @property
    def width(self):
        return round_up(self.batch)

    @property
    def shape(self):
        return 1, self.units, self.width

    state_sample = 0

    def project(self, x):
        """(gates * units, time, samples), the product for all steps at once."""
        x, builder, width = self.builder.rows(x), self.builder, self.width
        inputs, outputs = self.layer.kernel.shape
        plane = self.steps * width
        turned = Tensor((inputs, plane), "rows")
        self.fill(turned)  # the lanes without a sample
        builder.emit(
            "transpose",
            [
                x, turned, self.steps, inputs, width, self.batch, inputs, self.steps * inputs,
                plane,
            ],
        )  # fmt: skip
        y = Tensor((1, plane, outputs), "planes")
        columns = Columns.of_matrix(self.layer.kernel, plane)
        emit_product(builder, columns, self.layer.bias, turned, y, plane, 0, (plane, 1))
        return y

    def input_at(self, inputs, time):
        return Place(inputs, time * self.width), 0, self.steps * self.width

    def sums(self, outputs):
        return Tensor((1, self.width, outputs), "planes")

    def place(self, sums, gate):
        return Place(sums, gate * self.units * self.width)

    def sums_at(self, sums):
        return sums, 0

    def product(self, weights, bias, state, sums):
        columns = Columns.of_matrix(weights, self.width)
        emit_product(self.builder, columns, bias, state, sums, self.width, 0, (self.width, 1))

    def new_state(self):
        return Tensor((self.units, self.width), "rows")

    def new_sequence(self):
        return Tensor((self.units, self.steps * self.width), "rows")

    def copy_state(self, given, state):
        self.builder.emit(
            "transpose",
            [given, state, 1, 0, 0, self.batch, self.units, self.units, self.width],
        )

    def output_at(self, step):
        if self.sequence is None:
            return 0, 0, 0, 0
        return Place(self.sequence, step * self.width), 0, self.steps * self.width, 1

    def output(self, state):
        if self.sequence is None:
            return self.state(state)
        y = Tensor((self.batch, self.steps, self.units), "rows")
        self.builder.emit(
            "transpose",
            [
                self.sequence, y, self.steps, self.width, self.units, self.units, self.batch,
                self.steps * self.width, self.steps * self.units,
            ],
        )  # fmt: skip
        return y

    def state(self, state):
        y = Tensor((self.batch, self.units), "rows")
        self.builder.emit(
            "transpose",
            [state, y, 1, 0, 0, self.units, self.batch, self.width, self.units],
        )
        return y

    def mask(self, mask):
        floats = Tensor((self.steps, self.width), "rows")

        def turn(a, out):
            out[...] = 0
            out[:, : a.shape[0]] = (a != 0).T

        self.builder.host(turn, [mask], [floats])
        return floats

    def mask_place(self, mask, time):
        return Place(mask, time * self.width), 0
