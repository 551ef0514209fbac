"""Classifying a weight by its name and shape, and by the innermost layer that holds it."""

import keras
import numpy as np
import pytest
from conftest import fit, values, zeros
from keras import layers
from odd_layers import Weights, model_of, pruned, told

import keras_trim
from keras_trim import ConstantSparsity
from keras_trim.kinds import matrix_view
from keras_trim.patterns import MatrixView

HALF = ConstantSparsity(0.5, 0)


@pytest.mark.parametrize(
    ("name", "shape", "is_pruned"),
    [
        (None, (4, 6), True),
        (None, (6, 1), True),
        (None, (3, 4, 6), True),  # one matrix per expert
        (None, (3, 3, 4, 6), True),
        (None, (1, 1, 4, 6), True),  # of a 1x1 convolution
        (None, (1, 6), False),
        ("kernel", (0, 6), False),
        (None, (1, 5, 6), False),  # positions
        (None, (1, 1, 6), False),  # a token
        (None, (1, 5, 5, 6), False),  # positions in two dimensions
        (None, (3, 3, 6, 1), False),  # depthwise
        ("w", (4, 6), True),
        ("W_q", (4, 6), True),
        ("w2", (4, 6), True),
        ("weight", (4, 6), True),
        ("experts", (3, 4, 6), True),
        ("gate_proj", (3, 4, 6), True),
        ("expert_feedforward_gate_dense", (3, 4, 6), True),
        ("weight", (1, 6), False),
        ("own_kernel", (1, 6), True),  # the name decides
        ("relative_position_bias_table", (9, 2), False),
        ("query_tokens", (8, 6), False),
        ("gamma", (4, 6), False),
    ],
)
def test_by_name_and_shape(name, shape, is_pruned):
    model = model_of(Weights({name: shape}))
    assert told(lambda: keras_trim.prune_low_magnitude(model, HALF)) == []
    assert len(pruned(model)) == 1 + is_pruned


# Wrappers: the innermost layer decides what its kernel is.


class Scaled(layers.Wrapper):
    """A user's wrapper that also holds the kernel of its inner layer."""

    def build(self, input_shape=None):
        super().build(input_shape)
        self.kernel = self.layer.kernel

    def call(self, x):
        return self.layer(x)


@pytest.mark.parametrize("wrapper", [layers.SpectralNormalization, Scaled])
def test_a_wrapper_does_not_hide_its_layer(wrapper):
    depthwise, transposed = layers.DepthwiseConv2D(3), layers.Conv2DTranspose(16, 3)
    stack = [wrapper(depthwise), wrapper(wrapper(transposed))]
    model = keras.Sequential([keras.Input((8, 8, 8)), *stack])
    assert told(lambda: keras_trim.prune(model, None, sparsity_m_by_n=(2, 4))) == []
    assert values(depthwise.kernel).all()
    kernel = values(transposed.kernel)  # (height, width, outputs, inputs)
    assert ((kernel.reshape(3, 3, 16, 2, 4) != 0).sum(-1) == 2).all()
    names = [row.layer for row in keras_trim.sparsity_report(model).rows if "kernel" in row.path]
    assert sorted(names) == sorted([depthwise.name, transposed.name])


@pytest.mark.parametrize("wrapper", [layers.SpectralNormalization, Scaled])
def test_policies_are_asked_about_the_layer_in_a_wrapper(wrapper):
    class OnlyConvolutions(keras_trim.PruningPolicy):
        def allow_pruning(self, layer):
            return isinstance(layer, layers.Conv2D)

        def ensure_model_supports_pruning(self, model):
            pass

    convolution = wrapper(layers.Conv2D(8, 3))
    stack = [convolution, layers.Flatten(), layers.Dense(4)]
    model = keras.Sequential([keras.Input((8, 8, 8)), *stack])
    keras_trim.prune_low_magnitude(model, pruning_policy=OnlyConvolutions())
    assert pruned(model) == [convolution.layer.kernel.path]


def test_a_weight_that_two_layers_hold_is_pruned_once():
    class Tied(layers.Layer):
        def __init__(self, other):
            super().__init__()
            self.kernel = other.kernel

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.kernel))

    first = layers.Dense(4)
    first.build((None, 8))
    model = model_of(first, Tied(first))
    keras_trim.prune(model, 0.5)
    assert [row.zeros for row in keras_trim.sparsity_report(model).rows if row.size == 32] == [16]


# Adapters, quantization, weights of other frameworks


def test_lora(data):
    x, y = data
    adapted = [layers.Dense(8), layers.EinsumDense("bi,io->bo", (8,), bias_axes="o")]
    model = model_of(*adapted, layers.Dense(4))
    for layer in adapted:
        layer.enable_lora(2)
    (message,) = told(lambda: keras_trim.prune_low_magnitude(model, HALF))
    assert message.startswith("2 weights that are marked for pruning are frozen")
    before = [values(layer._kernel).copy() for layer in adapted]
    model.compile("adam", "mse")
    with pytest.warns(UserWarning, match="2 weights that are marked for pruning are not trained"):
        fit(model, (x, y))
    for layer, kernel in zip(adapted, before, strict=True):
        np.testing.assert_array_equal(values(layer._kernel), kernel)
        assert values(layer.lora_kernel_b).all()
    assert zeros(model) == [16, 2]


def test_lora_embeddings_and_convolutions():
    table, convolution = layers.Embedding(10, 8), layers.Conv1D(4, 2)
    model = keras.Sequential([keras.Input((4,), dtype="int32"), table, convolution])
    for layer in (table, convolution):
        layer.enable_lora(2)
    keras_trim.prune(model, 0.5)  # prunes at once, frozen or not
    reasons = {
        row.path.rsplit("/", 1)[-1]: row.reason for row in keras_trim.sparsity_report(model).rows
    }
    assert {name for name, reason in reasons.items() if (reason or "").startswith("LoRA")} == {
        "lora_embeddings_a",
        "lora_embeddings_b",
        "lora_kernel_a",
        "lora_kernel_b",
    }
    assert np.count_nonzero(values(table._embeddings) == 0) == 40


def test_quantized_layers(data):
    quantized = layers.Dense(8)
    model = model_of(quantized, layers.Dense(4))
    quantized.quantize("int8")
    assert told(lambda: keras_trim.prune_low_magnitude(model, HALF)) == []
    before = values(quantized._kernel).copy()
    model.compile("adam", "mse")
    fit(model, data)
    assert zeros(model) == [16, 2]
    np.testing.assert_array_equal(values(quantized._kernel), before)
    reasons = [row.reason for row in keras_trim.sparsity_report(quantized).rows]
    assert "dtype int8 is not a float" in reasons
    keras_trim.strip_pruning(model)
    for layer in model.layers[1:]:
        layer.quantize("int8")
    with pytest.raises(ValueError, match="Nothing in it can be pruned.*dtype int8"):
        keras_trim.prune(model, 0.5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="wraps modules of PyTorch")
def test_axes_of_torch_modules():
    import torch

    modules = [
        (torch.nn.Linear(8, 4), MatrixView((), (1,), (0,))),
        (torch.nn.Linear(8, 1), MatrixView((), (1,), (0,))),
        (torch.nn.Conv2d(8, 4, 3), MatrixView((2, 3), (1,), (0,))),
        (torch.nn.ConvTranspose2d(8, 4, 3), MatrixView((2, 3), (0,), (1,))),
        (torch.nn.Conv2d(8, 8, 3, groups=8), None),
    ]
    for module, view in modules:
        layer = layers.TorchModuleWrapper(module)
        weight = layer.variables[0]
        if view is None:
            assert told(lambda layer=layer: keras_trim.prune(model_with(layer), 0.5)) == []
            assert values(weight).all()
        else:
            assert matrix_view(layer, weight) == view
            keras_trim.prune(layer, 0.5)
            assert (
                np.count_nonzero(module.weight.detach().numpy() == 0) == weight.value.numel() // 2
            )
    table = layers.TorchModuleWrapper(torch.nn.Embedding(8, 4))
    with pytest.raises(ValueError, match="a table has none"):
        keras_trim.prune(table, None, sparsity_m_by_n=(2, 4))


def model_with(layer):
    """Puts a layer next to another one that can be pruned."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.wrapped, self.dense = layer, layers.Dense(4)
            self.dense.build((None, 8))
            self.built = True

    return Model()
