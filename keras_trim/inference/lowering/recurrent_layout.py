"""The memory layouts of a recurrent layer's tensors, and the instructions that depend on them."""

import numpy as np

from keras_trim.inference.ir.operations.dense import Dense
from keras_trim.inference.kernels.instructions import COPY, FILL, TRANSPOSE
from keras_trim.inference.lowering.packing import SparseColumns
from keras_trim.inference.lowering.registry import lower_operation
from keras_trim.inference.lowering.spmm import emit_spmm
from keras_trim.inference.lowering.spmv import emit_spmv
from keras_trim.inference.program.tensors import Place, Tensor, round_up


class _Layout:
    """The memory layout of a layer's tensors, which depends on the number of samples.

    Args:
        layer: `Recurrent`.
        builder: `Builder`.
        batch, steps: Integers.
    """

    def __init__(self, layer, builder, batch, steps):
        self.layer, self.builder, self.batch, self.steps = layer, builder, batch, steps
        self.units, self.gates = layer.units, layer.kernel.shape[1] // layer.units
        self.sequence = None  # the outputs of all steps
        if layer.return_sequences:
            self.sequence = self.new_sequence()

    def zeros(self):
        """Returns the outputs for an empty input."""
        shape = (self.batch, self.units)
        sequence = (self.batch, self.steps, self.units)
        tensors = [Tensor(sequence if self.layer.return_sequences else shape, "NHWC")]
        if self.layer.return_state:
            tensors += [Tensor(shape, "NHWC") for _ in range(self.num_states)]
        for tensor in tensors:
            self.fill(tensor)
        return tensors

    @property
    def num_states(self):
        return 2 if self.layer.kind == "lstm" else 1

    def fill(self, tensor):
        if tensor.size:
            self.builder.emit(FILL, y=tensor, size=tensor.size, value=0.0)

    def states(self, given):
        """Emits the initial state; returns its tensors, which the steps change."""
        states = [self.new_state() for _ in range(self.num_states)]
        for i, state in enumerate(states):
            self.fill(state)
            if given:
                self.copy_state(given[i], state)
        return states

    def mask_at(self, mask, time):
        """Returns the operands for the mask of a step, if there is one."""
        if mask is None:
            return {}
        place, sample = self.mask_place(mask, time)
        return {
            "mask": place,
            "mask_sample": sample,
            "has_mask": 1,
            "zeroes": int(self.layer.zero_output_for_mask),
        }

    def output_at(self, step):
        """Returns the operands for a step's output, unless only the last output is kept."""
        if self.sequence is None:
            return {}
        place, sample, unit = self.output_place(step)
        return {"y": place, "y_sample": sample, "y_unit": unit, "has_output": 1}

    def input_at(self, inputs, time):
        """Returns the operands for a step's projected input."""
        place, sample, unit = self.input_place(inputs, time)
        return {"input": place, "input_sample": sample, "input_unit": unit}

    def sums_at(self, name, sums):
        """Returns the operands for sums."""
        return {name: sums, f"{name}_sample": self.sums_sample(sums)}


class Rows(_Layout):
    """One sample after another, for few samples."""

    @property
    def shape(self):
        return self.batch, self.units, 1

    @property
    def state_sample(self):
        return self.units

    def project(self, x):
        projection = Dense(self.layer.kernel, self.layer.bias)
        return self.builder.to_nhwc(lower_operation(projection, self.builder, x))

    def input_place(self, inputs, time):
        width = self.gates * self.units
        return Place(inputs, time * width), self.steps * width, 1

    def sums(self, outputs):
        return Tensor((self.batch, outputs), "NHWC")

    def place(self, sums, gate):
        return Place(sums, gate * self.units)

    def sums_sample(self, sums):
        return (sums.tensor if isinstance(sums, Place) else sums).sample_size

    def product(self, weights, bias, state, sums):
        emit_spmv(self.builder, weights, bias, state, sums, self.batch, is_repeated=True)

    def new_state(self):
        return Tensor((self.batch, self.units), "NHWC")

    def new_sequence(self):
        return Tensor((self.batch, self.steps, self.units), "NHWC")

    def copy_state(self, given, state):
        self.builder.emit(
            COPY, x=given, y=state, batch=1, x_sample=0, y_sample=0, rows=1, columns=given.size,
            x_row=0, y_row=0,
        )  # fmt: skip

    def output_place(self, step):
        return Place(self.sequence, step * self.units), self.steps * self.units, 1

    def output(self, state):
        return state if self.sequence is None else self.sequence

    def state(self, state):
        return state

    def mask(self, mask):
        floats = Tensor(mask.shape, "NHWC")
        self.builder.host(lambda a, out: np.copyto(out, a != 0), [mask], [floats])
        return floats

    def mask_place(self, mask, time):
        return Place(mask, time), self.steps


def _dense_planes(pixels, channels):
    """Creates a tensor of planes without gaps, as the offsets of steps and gates assume."""
    tensor = Tensor((1, pixels, channels), "NCHW")
    tensor.plane = pixels
    return tensor


class Lanes(_Layout):
    """Samples in the lanes of vectors, (..., samples), with their number rounded up."""

    @property
    def width(self):
        return round_up(self.batch)

    @property
    def shape(self):
        return 1, self.units, self.width

    state_sample = 0

    def project(self, x):
        """Emits the product for all steps at once: (gates * units, time, samples)."""
        x, builder, width = self.builder.to_nhwc(x), self.builder, self.width
        inputs, outputs = self.layer.kernel.shape
        plane = self.steps * width
        turned = Tensor((inputs, plane), "NHWC")
        self.fill(turned)  # the lanes without a sample
        builder.emit(
            TRANSPOSE, x=x, y=turned, batch=self.steps, x_sample=inputs, y_sample=width,
            rows=self.batch, columns=inputs, x_row=self.steps * inputs, y_row=plane,
        )  # fmt: skip
        y = _dense_planes(plane, outputs)
        columns = SparseColumns.of_matrix(self.layer.kernel, plane, builder.skip_zeros)
        emit_spmm(builder, columns, self.layer.bias, turned, y, plane, 0, (plane, 1))
        return y

    def input_place(self, inputs, time):
        return Place(inputs, time * self.width), 0, self.steps * self.width

    def sums(self, outputs):
        return _dense_planes(self.width, outputs)

    def place(self, sums, gate):
        return Place(sums, gate * self.units * self.width)

    def sums_sample(self, sums):
        return 0

    def product(self, weights, bias, state, sums):
        columns = SparseColumns.of_matrix(weights, self.width, self.builder.skip_zeros)
        emit_spmm(self.builder, columns, bias, state, sums, self.width, 0, (self.width, 1))

    def new_state(self):
        return Tensor((self.units, self.width), "NHWC")

    def new_sequence(self):
        return Tensor((self.units, self.steps * self.width), "NHWC")

    def copy_state(self, given, state):
        self.builder.emit(
            TRANSPOSE, x=given, y=state, batch=1, x_sample=0, y_sample=0, rows=self.batch,
            columns=self.units, x_row=self.units, y_row=self.width,
        )  # fmt: skip

    def output_place(self, step):
        return Place(self.sequence, step * self.width), 0, self.steps * self.width

    def output(self, state):
        if self.sequence is None:
            return self.state(state)
        y = Tensor((self.batch, self.steps, self.units), "NHWC")
        self.builder.emit(
            TRANSPOSE, x=self.sequence, y=y, batch=self.steps, x_sample=self.width,
            y_sample=self.units, rows=self.units, columns=self.batch,
            x_row=self.steps * self.width, y_row=self.steps * self.units,
        )  # fmt: skip
        return y

    def state(self, state):
        y = Tensor((self.batch, self.units), "NHWC")
        self.builder.emit(
            TRANSPOSE, x=state, y=y, batch=1, x_sample=0, y_sample=0, rows=self.units,
            columns=self.batch, x_row=self.width, y_row=self.units,
        )  # fmt: skip
        return y

    def mask(self, mask):
        floats = Tensor((self.steps, self.width), "NHWC")

        def turn(a, out):
            out[...] = 0
            out[:, : a.shape[0]] = (a != 0).T

        self.builder.host(turn, [mask], [floats])
        return floats

    def mask_place(self, mask, time):
        return Place(mask, time * self.width), 0
