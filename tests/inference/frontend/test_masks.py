"""Masks. Keras attaches a mask to a tensor, and it goes wherever that same tensor goes.

So masks come out of nested models and of layers with layers inside; which of the operations that
change nothing hand them on depends on the backend. The reference is `model.predict`.
"""

import keras
import numpy as np
import pytest
from helpers import assert_same
from keras import layers, ops

STEPS, WIDTH = 5, 8
TOKENS = np.array([[3, 7, 1, 2, 5], [4, 2, 0, 0, 0], [6, 0, 0, 0, 0]])


def embedding():
    return layers.Embedding(9, WIDTH, mask_zero=True)


class Within(layers.Layer):
    """A layer that returns what the layers inside return, one after the other."""

    def __init__(self, *parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(parts)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


class Block(layers.Layer):
    """Attention with a residual sum."""

    def __init__(self):
        super().__init__()
        self.attention, self.norm = layers.MultiHeadAttention(2, 4), layers.LayerNormalization()
        self.supports_masking = True

    def call(self, x):
        return self.norm(x + self.attention(x, x))


class Positions(layers.Layer):
    """Computes a new tensor, whose mask it declares."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = embedding(), layers.Embedding(STEPS, WIDTH)

    def call(self, x):
        return self.tokens(x) + self.positions(ops.arange(STEPS))

    def compute_mask(self, x, mask=None):
        return self.tokens.compute_mask(x)


class OwnEmbedding(layers.Embedding):
    """A subclass that computes something else with the mask of its parent."""

    def call(self, x):
        return super().call(x) + 1.0


def functional():
    x = keras.Input((STEPS, WIDTH))
    return keras.Model(x, layers.Dense(WIDTH)(x))


# From tokens to a tensor of (batch, steps, width).
SOURCES = {
    "embedding": lambda: [embedding()],
    "masking": lambda: [layers.Embedding(9, WIDTH), layers.Masking(0.1)],
    "subclass": lambda: [OwnEmbedding(9, WIDTH, mask_zero=True)],
    "declared": lambda: [Positions()],
    "declared, then blocks": lambda: [Positions(), Block(), Within(layers.Dense(WIDTH))],
    "embedding inside": lambda: [Within(embedding(), layers.LayerNormalization())],
    "sublayer": lambda: [embedding(), Within(layers.Dense(WIDTH))],
    "layer that returns its input": lambda: [embedding(), Within()],
    "function that returns its input": lambda: [embedding(), layers.Lambda(lambda x: x)],
    "function that does not": lambda: [embedding(), layers.Lambda(lambda x: 2 * x)],
    "wrapper": lambda: [embedding(), layers.SpectralNormalization(layers.Dense(WIDTH))],
    "each step": lambda: [embedding(), layers.TimeDistributed(layers.Dense(WIDTH))],
    "sequential": lambda: [embedding(), keras.Sequential([layers.Dense(WIDTH), layers.ReLU()])],
    "recurrent within sequential": lambda: [
        embedding(),
        keras.Sequential([layers.Bidirectional(layers.GRU(4, return_sequences=True))]),
    ],
    "functional": lambda: [embedding(), functional()],
    "made by a nested model": lambda: [keras.Sequential([embedding(), layers.Dropout(0.5)])],
    "destroyed": lambda: [embedding(), layers.Conv1D(WIDTH, 1)],
    "nothing to reshape": lambda: [embedding(), layers.Reshape((STEPS, WIDTH))],
    "nothing to permute": lambda: [embedding(), layers.Permute((1, 2))],
    "nothing to crop": lambda: [embedding(), layers.Cropping1D(0)],
    "nothing to add": lambda: [embedding(), layers.ZeroPadding1D(0)],
}
# Layers that look at masks: as an argument, on their inputs, and both.
READERS = {
    "mean": lambda x, other: layers.GlobalAveragePooling1D()(x),
    "product": lambda x, other: layers.Multiply()([x, other]),
    "attention": lambda x, other: layers.MultiHeadAttention(2, 4)(x, x),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("source", SOURCES)
def test_masks_arrive_where_they_do_in_keras(source, reader):
    tokens = x = keras.Input((STEPS,), dtype="int32")
    for layer in SOURCES[source]():
        x = layer(x)
    model = keras.Model(tokens, READERS[reader](x, embedding()(tokens)))
    assert_same(model, TOKENS, native=False)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_masks_pass_nested_models_without_keras():
    tokens = keras.Input((STEPS,), dtype="int32")
    x = keras.Sequential([layers.Dense(WIDTH), layers.ReLU()])(embedding()(tokens))
    assert_same(keras.Model(tokens, layers.LSTM(3)(functional()(x))), TOKENS)


@pytest.mark.slow
@pytest.mark.parametrize("merge", [layers.Multiply, layers.Maximum, layers.Minimum, layers.Average])
@pytest.mark.parametrize("masked", [(0, 1, 2), (0,), (1,), (0, 2)])
def test_merges_leave_masked_steps_out(merge, masked):
    tokens = [keras.Input((STEPS,), dtype="int32") for _ in range(3)]
    parts = [layers.Embedding(9, WIDTH, mask_zero=i in masked)(x) for i, x in enumerate(tokens)]
    merged = merge()(parts)
    model = keras.Model(tokens, [merged, layers.LSTM(3)(merged)])
    data = [np.random.default_rng(seed).integers(0, 3, (4, STEPS)) for seed in range(3)]
    assert_same(model, data)


class Attending(keras.Model):
    """A model in which an attention layer deletes the mask of its inputs, for all later layers."""

    def __init__(self, pool):
        super().__init__()
        self.embedding, self.attention = embedding(), layers.MultiHeadAttention(2, 4)
        self.add, self.product = layers.Add(), layers.Multiply()
        self.mean, self.pool = layers.GlobalAveragePooling1D(), pool

    def build(self, shape):
        self.embedding.build(shape)
        self.attention.build((*shape, WIDTH), (*shape, WIDTH))

    def call(self, tokens):
        x = self.embedding(tokens)
        return self.pool(self, x, self.attention(x, x))


def test_attention_inside_a_layer_deletes_masks():
    tokens = keras.Input((STEPS,), dtype="int32")
    x = embedding()(tokens)
    y = Block()(x)
    model = keras.Model(tokens, layers.Maximum()([x, layers.Average()([x, y])]))
    assert_same(model, TOKENS, native=False)


@pytest.mark.parametrize(
    "pool",
    [
        lambda model, x, y: model.mean(x),
        lambda model, x, y: model.mean(y),
        lambda model, x, y: model.mean(model.add([x, y])),
        lambda model, x, y: model.product([x, y]),
    ],
)
def test_attention_deletes_the_masks_of_its_inputs(pool):
    subclassed = Attending(pool)
    subclassed(TOKENS)
    assert_same(subclassed, TOKENS, native=False)
    # A functional model has noted the masks before the attention layer runs.
    tokens = keras.Input((STEPS,), dtype="int32")
    assert_same(keras.Model(tokens, subclassed.call(tokens)), TOKENS, native=False)


def test_a_masked_recurrent_network_needs_no_keras(tmp_path):
    """Functional models list the operations that compute the mask."""
    x = keras.Input((STEPS, WIDTH))
    y = layers.LSTM(4)(layers.Masking()(x))
    data = np.random.default_rng(0).standard_normal((3, STEPS, WIDTH)).astype("float32")
    data[1, 2:] = 0.0
    engine = assert_same(keras.Model(x, y), data)
    engine.save(tmp_path / "a.engine")


@pytest.mark.parametrize(
    "read",
    [
        lambda x, y: layers.LSTM(3)(layers.GRU(4, return_sequences=True)(x)),
        lambda x, y: layers.LSTM(3)(layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)),
        lambda x, y: layers.Attention()([x, y]),
        lambda x, y: layers.AdditiveAttention()([x, y]),
        lambda x, y: layers.LSTM(3)(layers.AdditiveAttention()([x, y, layers.Dense(WIDTH)(y)])),
        lambda x, y: layers.AdditiveAttention(use_scale=False)([x, y], mask=[None, y[..., 0] > 0]),
        lambda x, y: layers.Dense(3)(layers.GlobalAveragePooling1D()(x)),
        lambda x, y: layers.GlobalAveragePooling1D(keepdims=True)(layers.Multiply()([x, y])),
    ],
)
def test_layers_read_masks_without_keras(read):
    tokens = [keras.Input((STEPS,), dtype="int32") for _ in range(2)]
    x, y = (embedding()(each) for each in tokens)
    assert_same(keras.Model(tokens, read(x, y)), [TOKENS, TOKENS[::-1].copy()])
