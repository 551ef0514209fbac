"""Where the tensors of a recurrent layer lie, and the instructions that depend on it."""

import numpy as np

from keras_trim.inference.operations.dense import Dense
from keras_trim.inference.operations.plane_products import emit_product
from keras_trim.inference.operations.row_products import emit_row_product
from keras_trim.inference.packing import Columns
from keras_trim.inference.tensors import Place, Tensor, round_up


class _Layout:
    """Where the tensors of a layer lie: which differs with the number of samples.

    Args:
        layer: `Recurrent`.
        builder: `plan.Builder`.
        batch, steps: Integers.
    """

    def __init__(self, layer, builder, batch, steps):
        self.layer, self.builder, self.batch, self.steps = layer, builder, batch, steps
        self.units, self.gates = layer.units, layer.kernel.shape[1] // layer.units
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


class Rows(_Layout):
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
        emit_row_product(self.builder, weights, bias, state, sums, self.batch, is_repeated=True)

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


def _dense_planes(pixels, channels):
    """A tensor whose planes lie right behind one another, as steps and gates count them."""
    tensor = Tensor((1, pixels, channels), "planes")
    tensor.plane = pixels
    return tensor


class Lanes(_Layout):
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
        y = _dense_planes(plane, outputs)
        columns = Columns.of_matrix(self.layer.kernel, plane)
        emit_product(builder, columns, self.layer.bias, turned, y, plane, 0, (plane, 1))
        return y

    def input_at(self, inputs, time):
        return Place(inputs, time * self.width), 0, self.steps * self.width

    def sums(self, outputs):
        return _dense_planes(self.width, outputs)

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
