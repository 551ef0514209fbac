"""Rules that fold the operations before and after a convolution, dense layer or pool into it."""

import dataclasses

import numpy as np

from keras_trim.inference.ir.operations import (
    Activation,
    Binary,
    Convolution,
    Dense,
    DepthwiseConvolution,
    Pad,
    Pool,
    ScaleChannels,
)
from keras_trim.inference.ir.rewrites.driver import rule

_PRODUCTS = (Convolution, Dense, DepthwiseConvolution)


def _is_clipped(operation):
    return operation.low > -np.inf or operation.high < np.inf


@rule(Pad, (Pool, Convolution, DepthwiseConvolution), place="second")
def fold_padding(pad, window, user):
    """Folds padding into the convolution or max pooling after it."""
    if any(n < 0 for pair in pad.amounts for n in pair) or set(window.padding) != {"valid"}:
        return None
    changes = {"padding": ("valid", *pad.amounts) if len(pad.amounts) == 1 else tuple(pad.amounts)}
    if isinstance(window, Pool):
        changes["pad_value"] = pad.value
        return dataclasses.replace(window, **changes) if window.is_max else None
    if pad.value != 0 or getattr(window, "input_dilation", (1, 1)) != (1, 1):
        return None
    return dataclasses.replace(window, **changes)


@rule(_PRODUCTS, (Activation, ScaleChannels))
def fold_scale(product, scale, user):
    """Folds a scale and shift, per channel (batch normalization) or scalar, into weights."""
    is_affine = isinstance(scale, Activation) and scale.function == "affine"
    if _is_clipped(product) or not (is_affine or isinstance(scale, ScaleChannels)):
        return None
    if is_affine:
        ones = np.ones_like(product.bias)
        factor, shift = scale.a * ones, scale.b * ones
    else:
        factor, shift = scale.scale, scale.shift
    of_kernel = factor
    if isinstance(product, DepthwiseConvolution):
        of_kernel = factor.reshape(product.kernel.shape[-2:])
    return dataclasses.replace(
        product,
        kernel=(product.kernel * of_kernel).astype(np.float32),
        bias=(product.bias * factor + shift).astype(np.float32),
    )


@rule((Pool, Convolution), (Pool, Convolution))
def order_means(first, second, user):
    """Swaps average pooling and a 1x1 convolution if that computes less."""
    if _is_mean(first) and _is_pointwise(second):
        *_, inputs, outputs = second.kernel.shape
        # Pool the side with fewer channels, but keep a convolution that can absorb a sum last.
        has_strides, takes_sum = tuple(first.strides) != (1, 1), isinstance(user, Binary)
        if not has_strides and inputs * second.groups > outputs and not takes_sum:
            return second, first
    elif _is_pointwise(first) and _is_mean(second) and tuple(second.strides) != (1, 1):
        return second, first  # convolves fewer pixels
    return None


def _is_mean(operation):
    """Whether it is average pooling whose windows all contain a pixel."""
    return (
        isinstance(operation, Pool)
        and not operation.is_max
        and set(operation.padding) <= {"valid", "same"}
    )


def _is_pointwise(operation):
    """Whether it is an affine function of each pixel by itself."""
    return (
        isinstance(operation, Convolution)
        and tuple(operation.window) == (1, 1)
        and operation.strides == operation.input_dilation == (1, 1)
        and all(padding in ("valid", "same", "causal", (0, 0)) for padding in operation.padding)
        and not operation.residual
        and not _is_clipped(operation)
    )


@rule(Convolution, Binary)
def fold_residual(convolution, add, user):
    """Folds the sum with another tensor into the convolution before it."""
    if add.function != "add" or add.is_broadcast:
        return None
    if convolution.residual or _is_clipped(convolution):
        return None
    return dataclasses.replace(convolution, residual=True)


@rule((*_PRODUCTS, Pool), Activation)
def fold_clip(product, clip, user):
    """Folds a clip (ReLU) into the product or pooling before it."""
    if clip.function != "clip" or _is_clipped(product):
        return None
    return dataclasses.replace(product, low=clip.a, high=clip.b)


RULES = (fold_padding, fold_scale, order_means, fold_residual, fold_clip)
