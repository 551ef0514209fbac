"""The matrix products inside layers: which rows a kernel multiplies, and which outputs it gives.

A product is read as `systems` independent products of (samples, inputs) and (inputs, outputs):
one for a dense layer or a convolution, one per group of a grouped convolution, one per label that
an einsum shares between data, kernel and output. A convolution's inputs are its unfolded windows,
place by place, channels last.
"""

import math

import keras
import numpy as np
from keras import layers, ops


class Product:
    """How one kernel of a layer multiplies what the layer is called with.

    Args:
        layer: The layer whose call is watched.
        variable: The kernel, a Keras variable.
        bias: The variable that is added to the product, or `None`.
    """

    # Whether the product, with the bias and the activation, is all that the layer gives, its last
    # labels being those of systems and outputs.
    is_output = False

    def __init__(self, layer, variable, bias):
        self.layer, self.variable, self.bias = layer, variable, bias

    @property
    def shape(self):
        """Tuple (systems, inputs, outputs)."""
        raise NotImplementedError

    @property
    def channels(self):
        """Integer: how many consecutive inputs belong to one place of a window."""
        return self.shape[1]

    def to_matrices(self, kernel):
        """NumPy array in the variable's shape -> (systems, inputs, outputs)."""
        raise NotImplementedError

    def from_matrices(self, matrices):
        """The reverse of `to_matrices`."""
        raise NotImplementedError

    def rows(self, x):
        """What the kernel multiplies: float64 array (systems, samples, inputs).

        Args:
            x: Tensor that the layer was called with.
        """
        raise NotImplementedError

    def outputs(self, x, kernel):
        """What the product gives, without a bias: float64 array (systems, samples, outputs)."""
        return self.rows(x) @ self.to_matrices(to_numpy(kernel))

    def row_bytes(self, x):
        """Integer: bytes of the rows of one example."""
        raise NotImplementedError

    def shifted_bias(self, bias, shift):
        """The bias that adds a shift of the outputs, or `None` if it cannot.

        Args:
            bias: Float64 array in the bias's shape.
            shift: Float64 array (systems, outputs).
        """
        return bias + shift.reshape(bias.shape)

    @property
    def has_free_bias(self):
        """Whether the bias can take any shift of the outputs."""
        return self.bias is not None


def to_numpy(x):
    """A tensor or variable as a float64 NumPy array."""
    x = ops.convert_to_tensor(x)
    if keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        x = ops.cast(x, "float32")
    return np.asarray(ops.convert_to_numpy(x), "float64")


class DenseProduct(Product):
    """Dense layers."""

    is_output = True

    @property
    def shape(self):
        return 1, *self.variable.shape

    def to_matrices(self, kernel):
        return kernel[None]

    def from_matrices(self, matrices):
        return matrices[0]

    def rows(self, x):
        return to_numpy(x).reshape(1, -1, self.variable.shape[0])

    def row_bytes(self, x):
        return 8 * math.prod(x.shape[1:])


class RecurrentProduct(DenseProduct):
    """The input kernel of a recurrent layer. GRU's bias may have two rows; the first one adds."""

    is_output = False

    def shifted_bias(self, bias, shift):
        shifted = bias.copy()
        shifted.reshape(-1, shift.size)[0] += shift[0]
        return shifted


class EinsumProduct(Product):
    """`EinsumDense`: labels are stacked, summed over, of the outputs or of the samples."""

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
        """The shift with an axis for each label of the output that the bias has an axis for."""
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
        extra = shift.ndim - bias.ndim
        return bias + shift.reshape(shift.shape[max(extra, 0) :])


class ConvolutionProduct(Product):
    """Convolutions of any rank, grouped and dilated ones too."""

    is_output = True

    @property
    def _groups(self):
        return self.layer.groups

    @property
    def shape(self):
        *window, channels, filters = self.variable.shape
        return self._groups, math.prod(window) * channels, filters // self._groups

    @property
    def channels(self):
        return self.variable.shape[-2]

    def to_matrices(self, kernel):
        systems, inputs, outputs = self.shape
        return kernel.reshape(inputs, systems, outputs).swapaxes(0, 1)

    def from_matrices(self, matrices):
        return matrices.swapaxes(0, 1).reshape(self.variable.shape)

    def _settings(self):
        """Tuple: window, strides, dilations, padding, whether channels come first."""
        layer = self.layer
        return (
            tuple(self.variable.shape[:-2]),
            layer.strides,
            layer.dilation_rate,
            layer.padding,
            layer.data_format == "channels_first",
        )

    def _input(self, x):
        return x

    def rows(self, x):
        window, strides, dilations, padding, is_first = self._settings()
        x = to_numpy(self._input(x))
        if is_first:
            x = np.moveaxis(x, 1, -1)
        windows = unfold(x, window, strides, dilations, padding)
        *places, channels = windows.shape  # (examples, *positions, *window, channels)
        samples = math.prod(places[: 1 + len(window)])
        systems = self._groups
        if systems == 1:
            return windows.reshape(1, samples, -1)
        windows = windows.reshape(samples, math.prod(window), systems, channels // systems)
        return windows.transpose(2, 0, 1, 3).reshape(systems, samples, -1)

    def outputs(self, x, kernel):
        """By the backend's convolution, which unfolds nothing."""
        layer, x = self.layer, self._input(x)
        padding = layer.padding
        if padding == "causal":
            pads = [(0, 0), (0, 0), (0, 0)]
            pads[2 if layer.data_format == "channels_first" else 1] = (
                layer.dilation_rate[0] * (layer.kernel_size[0] - 1),
                0,
            )
            x, padding = ops.pad(x, pads), "valid"
        y = self._convolve(x, ops.cast(ops.convert_to_tensor(kernel), x.dtype), padding)
        y = to_numpy(y)
        if layer.data_format == "channels_first":
            y = np.moveaxis(y, 1, -1)
        return y.reshape(-1, self._groups, self.shape[2]).swapaxes(0, 1)

    def _convolve(self, x, kernel, padding):
        layer = self.layer
        return ops.conv(
            x,
            kernel,
            strides=list(layer.strides),
            padding=padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    def row_bytes(self, x):
        window, strides, *_ = self._settings()
        return 8 * math.prod(x.shape[1:]) * math.prod(window) // max(math.prod(strides), 1)


class PointwiseProduct(ConvolutionProduct):
    """The pointwise kernel of a separable convolution, on what its depthwise kernel gives."""

    _groups = 1

    def _settings(self):
        ones = (1,) * self.layer.rank
        return ones, ones, ones, "valid", self.layer.data_format == "channels_first"

    def _input(self, x):
        layer = self.layer
        padding = layer.padding
        if padding == "causal":
            x, padding = ops.pad(x, layer._compute_causal_padding()), "valid"
        return ops.depthwise_conv(
            x,
            ops.cast(ops.convert_to_tensor(layer.depthwise_kernel), x.dtype),
            strides=layer.strides,
            padding=padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    def outputs(self, x, kernel):
        return Product.outputs(self, x, kernel)


def unfold(x, window, strides, dilations, padding):
    """The windows that a convolution multiplies.

    Args:
        x: Array (examples, *positions, channels).
        window, strides, dilations: Tuples of integers, one for each axis of positions.
        padding: `"valid"`, `"same"` (as TensorFlow pads) or `"causal"`.

    Returns:
        Array (examples, *positions, *window, channels), a view where it can be.
    """
    axes = range(1, 1 + len(window))
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True)]
    pads = [(0, 0)] * x.ndim
    for axis, span, stride in zip(axes, spans, strides, strict=True):
        if padding == "causal":
            pads[axis] = (span - 1, 0)
        elif padding == "same":
            positions = -(-x.shape[axis] // stride)
            total = max((positions - 1) * stride + span - x.shape[axis], 0)
            pads[axis] = (total // 2, total - total // 2)
    if any(pad != (0, 0) for pad in pads):
        x = np.pad(x, pads)
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(axes))
    steps = [slice(None), *(slice(None, None, stride) for stride in strides), slice(None)]
    steps += [slice(None, None, dilation) for dilation in dilations]
    return np.moveaxis(windows[tuple(steps)], 1 + len(window), -1)


_CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


def products_of(root):
    """The products of all layers in a layer or model whose calls can be watched.

    Returns:
        Dict: id of a kernel -> `Product`. Kernels that several layers share are left out.
    """
    found, shared = {}, set()
    for layer in root._flatten_layers():
        product = _product_of(layer)
        if product is not None:
            key = id(product.variable)
            shared |= {key} & set(found)
            found[key] = product
    return {key: product for key, product in found.items() if key not in shared}


def _product_of(layer):
    """The product in a layer that does what Keras's own class does, or `None`."""
    is_own = not type(layer).call.__module__.startswith("keras.src.")
    if not layer.built or is_own or layer.quantization_mode is not None:
        return None
    if isinstance(layer, layers.Dense):
        return DenseProduct(layer, layer._kernel, layer.bias)
    if isinstance(layer, layers.EinsumDense):
        product = EinsumProduct(layer, layer._kernel, layer.bias)
        return product if product.is_supported else None
    if isinstance(layer, _CONVOLUTIONS):
        return ConvolutionProduct(layer, layer._kernel, layer.bias)
    if isinstance(layer, _SEPARABLE):
        return PointwiseProduct(layer, layer.pointwise_kernel, layer.bias)
    if isinstance(layer, layers.RNN) and isinstance(layer.cell, _CELLS):
        return RecurrentProduct(layer, layer.cell.kernel, layer.cell.bias)
    return None
