"""Finds the matrix products in a layer or model."""

from keras import layers

from keras_trim.one_shot.convolution_products import ConvolutionProduct, PointwiseProduct
from keras_trim.one_shot.dense_products import DenseProduct, EinsumProduct, RecurrentProduct

_CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


def products_of(root):
    """The products of all supported layers in a layer or model.

    Returns:
        Dict: id of a kernel -> `Product`. Leaves out kernels that several layers share.
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
    """The product of a layer that uses Keras's own `call`, or `None`."""
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
