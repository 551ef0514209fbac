"""Trains tiny backbones of KerasHub with random weights for two steps under pruning."""

import warnings

import keras
import numpy as np
import pytest

import keras_trim

keras_hub = pytest.importorskip(
    "keras_hub",
    reason="KerasHub is installed without its dependencies: see `setup` in the Makefile",
)
models = keras_hub.models
TEXT = {"vocabulary_size": 20, "num_layers": 1, "hidden_dim": 8, "intermediate_dim": 16}
DECODER = TEXT | {"num_query_heads": 2, "num_key_value_heads": 1}
# Weights of rank 2 or more that stay dense: biases of heads, positions, depthwise kernels.
ATTENTION_BIASES = ["key/bias", "query/bias", "value/bias"]
BACKBONES = {
    "BERT": (
        lambda: models.BertBackbone(**TEXT, num_heads=2, max_sequence_length=6),
        ATTENTION_BIASES,
    ),
    "GPT-2": (
        lambda: models.GPT2Backbone(**TEXT, num_heads=2, max_sequence_length=6),
        ATTENTION_BIASES,
    ),
    "Gemma": (lambda: models.GemmaBackbone(**DECODER, head_dim=4), []),
    "Mixtral": (lambda: models.MixtralBackbone(**DECODER, num_experts=2, top_k=1), []),
    "ViT": (
        lambda: models.ViTBackbone((8, 8, 3), (4, 4), 1, 2, 8, 16),
        [*ATTENTION_BIASES, "vit_patching_and_embedding/class_token"],
    ),
    "MobileNet": (
        lambda: models.MobileNetBackbone(
            stackwise_expansion=[[8]],
            stackwise_num_blocks=[1],
            stackwise_num_filters=[[8]],
            stackwise_kernel_size=[[3]],
            stackwise_num_strides=[[1]],
            stackwise_se_ratio=[[0.5]],
            stackwise_activation=[["relu"]],
            stackwise_padding=[[1]],
            output_num_filters=8,
            depthwise_filters=8,
            depthwise_stride=1,
            depthwise_residual=True,
            last_layer_filter=8,
            squeeze_and_excite=0.5,
            image_shape=(8, 8, 3),
            input_num_filters=8,
        ),
        ["block_0_0_conv1/kernel", "block_1_0_conv2/kernel"],
    ),
}


def with_head(backbone):
    """Adds a head: logits over the vocabulary for text, or one number for an image."""
    outputs = backbone.output
    if not isinstance(backbone.input, dict):
        outputs = keras.layers.Dense(1)(keras.layers.Flatten()(outputs))
    else:
        if isinstance(outputs, dict):
            outputs = outputs["sequence_output"]
        outputs = backbone.token_embedding(outputs, reverse=True)
    return keras.Model(backbone.input, outputs)


def batch(model):
    """Returns inputs and targets: 4 examples, with texts of 6 tokens."""
    rng = np.random.default_rng(0)
    inputs = {tensor.name: tensor for tensor in model.inputs}
    x = {}
    for name, tensor in inputs.items():
        shape = (4, *(size or 6 for size in tensor.shape[1:]))
        x[name] = rng.integers(0, 2, shape) if "int" in tensor.dtype else rng.random(shape)
    y = np.ones((4, *(size or 6 for size in model.output.shape[1:])))
    return x if len(x) > 1 else x.popitem()[1], y


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_backbones(name):
    make, left_out = BACKBONES[name]
    model = with_head(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    x, y = batch(model)
    with warnings.catch_warnings():
        # BERT's pooled output, which the logits do not use.
        warnings.filterwarnings("ignore", "Gradients do not exist for variables .*pooled")
        model.fit(x, y, batch_size=2, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    report = keras_trim.sparsity_report(model)
    assert [row.path for row in report.pruned_rows if row.zeros < round(row.size * 0.5)] == []
    rest = [row for row in report.rows if row.reason is not None and len(row.shape) > 1]
    assert sorted("/".join(row.path.split("/")[-2:]) for row in rest) == sorted(left_out)
