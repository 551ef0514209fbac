"""Products of dense, recurrent and einsum layers."""

import math

import numpy as np

from keras_trim.one_shot.product import Product, to_numpy

# The second moments of more inputs take gigabytes of memory and minutes to solve. So the inputs of
# wide layers, such as VGG's first dense one, are divided into parts of at most `PART`.
WIDE, PART = 8192, 4096
# Units of patterns should not cross parts.
_MULTIPLE = 16


class DenseProduct(Product):
    """Dense layers. Parts of a wide layer are systems, whose outputs add up."""

    is_output = True

    @property
    def shape(self):
        inputs, outputs = self.variable.shape
        parts = _num_parts(inputs)
        return parts, inputs // parts, outputs

    @property
    def is_divided(self):
        return self.shape[0] > 1

    def to_matrices(self, kernel):
        return kernel.reshape(self.shape)

    def from_matrices(self, matrices):
        return matrices.reshape(self.variable.shape)

    def rows(self, x):
        parts, inputs, _ = self.shape
        return to_numpy(x).reshape(-1, parts, inputs).swapaxes(0, 1)

    def row_bytes(self, x):
        return 8 * math.prod(x.shape[1:])

    def output_shift(self, shift):
        return shift.sum(0)


def _num_parts(inputs):
    if inputs <= WIDE:
        return 1
    sizes = (size for size in range(PART, 0, -_MULTIPLE) if inputs % size == 0)
    return inputs // next(sizes, inputs)


class RecurrentProduct(DenseProduct):
    """The input kernel of a recurrent layer.

    A GRU bias may have two rows; the first one is added to this product.
    """

    is_output = False

    def shifted_bias(self, bias, shift):
        shifted = bias.copy()
        outputs = self.shape[2]
        shifted.reshape(-1, outputs)[0] += self.output_shift(shift)
        return shifted


class EinsumProduct(Product):
    """`EinsumDense`: each label belongs to the systems, the inputs, the outputs or the samples."""

    def __init__(self, layer, variable, bias):
        super().__init__(layer, variable, bias)
        operands, self._output = layer.equation.replace(" ", "").split("->")
        self._data, self._kernel = operands.split(",")
        kernel, data, output = (set(x) for x in (self._kernel, self._data, self._output))
        self._stack = [a for a in self._kernel if a in output and a in data]
        self._inputs = [a for a in self._kernel if a not in output]
        self._outputs = [a for a in self._kernel if a in output and a not in data]
        self.is_supported = (
            set(self._inputs) <= data
            and data - kernel - {"."} <= output
            and "..." not in self._kernel
            and len(kernel) == len(self._kernel)
        )

    def _size(self, labels):
        sizes = dict(zip(self._kernel, self.variable.shape, strict=True))
        return math.prod(sizes[label] for label in labels)

    @property
    def shape(self):
        return tuple(self._size(x) for x in (self._stack, self._inputs, self._outputs))

    @property
    def _order(self):
        labels = self._stack + self._inputs + self._outputs
        return [self._kernel.index(label) for label in labels]

    def to_matrices(self, kernel):
        return kernel.transpose(self._order).reshape(self.shape)

    def from_matrices(self, matrices):
        shape = [self.variable.shape[axis] for axis in self._order]
        return matrices.reshape(shape).transpose(np.argsort(self._order))

    def rows(self, x):
        x = to_numpy(x)
        free = [a for a in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if a not in self._data + self._kernel]
        ellipsis = "".join(free[: x.ndim - len(self._data.replace("...", ""))])
        data = self._data.replace("...", ellipsis)
        samples = [label for label in data if label not in self._kernel]
        order = [data.index(label) for label in self._stack + samples + self._inputs]
        systems, inputs, _ = self.shape
        return x.transpose(order).reshape(systems, -1, inputs)

    def row_bytes(self, x):
        return 8 * math.prod(x.shape[1:])

    def _shift_to_bias(self, shift):
        """The shift with one axis per label of the output, of size 1 for labels of samples."""
        sizes = dict(zip(self._kernel, self.variable.shape, strict=True))
        own = self._stack + self._outputs
        shift = shift.reshape([sizes[label] for label in own])
        output = self._output.replace("...", "")
        order = [own.index(label) for label in output if label in own]
        shift = shift.transpose(order)
        return shift.reshape([sizes[a] if a in own else 1 for a in output])

    @property
    def has_free_bias(self):
        axes = self.layer.bias_axes or ""
        return self.bias is not None and set(self._stack + self._outputs) <= set(axes)

    def shifted_bias(self, bias, shift):
        shift = self._shift_to_bias(shift)
        labels = self._output.replace("...", "")
        first = min(labels.index(axis) for axis in self.layer.bias_axes)  # where the bias begins
        last = first + bias.ndim - shift.ndim  # the axes of an ellipsis at the end
        return bias + shift.reshape(shift.shape[first:] + (1,) * last)
