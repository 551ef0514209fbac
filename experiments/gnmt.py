"""GNMT: stacked LSTM layers with attention for translation, as an ordinary Keras model.

Wu et al., "Google's neural machine translation system", https://arxiv.org/abs/1609.08144. The first
encoder layer is bidirectional, and the layers from the third on have residual connections.
Attention is additive (Bahdanau et al., https://arxiv.org/abs/1409.0473). As in MLPerf's version,
the output of the first decoder layer is the query, and all layers above it get the context of the
same step. So each layer processes all words of a training batch at once.

Sentences are rows of subword IDs, padded with `PAD`. The padding is masked, so the other sentences
of a batch do not change a translation.
"""

import keras
from keras import layers, ops

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3


def build(vocabulary, width=1024, depth=8, dropout=0.2):
    """Builds the model for training with teacher forcing.

    Args:
        vocabulary: Integer. Number of subwords, shared by both languages.
        width: Integer. Units of each LSTM layer; 1024 in the paper.
        depth: Integer, at least 2. Number of encoder layers and of decoder layers; 8 in the paper.
        dropout: Float. Dropout rate for the inputs of each LSTM layer.

    Returns:
        Keras model with two int32 inputs of shape (batch, words): `source`, and `target`, which is
        `BEGIN` followed by the translation. The output is the logits of the next word at each
        position, of shape (batch, words, vocabulary).
    """
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    parts = _Layers(vocabulary, width, depth, dropout)
    memory = parts.encode(source)
    states = [None] * depth
    logits, _ = parts.decode(target, memory, ops.not_equal(source, PAD), states)
    return keras.Model({"source": source, "target": target}, logits, name="gnmt")


class _Layers:
    """The model's layers: new ones, or those of an existing model, looked up by name."""

    def __init__(self, vocabulary=None, width=None, depth=None, dropout=0.0, model=None):
        self._model = model
        if model is not None:
            depth = sum(layer.name.startswith("decoder_lstm") for layer in model.layers)
            width = model.get_layer("decoder_lstm_1").units
        self.width, self.depth = width, depth
        make = self._make
        # From Keras's default, up to 0.05, embeddings take epochs to grow large enough.
        words = {"embeddings_initializer": keras.initializers.RandomNormal(stddev=1.0)}
        self._source = make(layers.Embedding, "source_embedding", vocabulary, width, **words)
        self._target = make(layers.Embedding, "target_embedding", vocabulary, width, **words)
        first = None if model else layers.LSTM(width, return_sequences=True)
        self._encoder = [make(layers.Bidirectional, "encoder_lstm_1", first)]
        self._decoder = []
        for i in range(1, depth + 1):
            lstm = {"return_sequences": True}
            if i > 1:
                self._encoder.append(make(layers.LSTM, f"encoder_lstm_{i}", width, **lstm))
            lstm["return_state"] = True
            self._decoder.append(make(layers.LSTM, f"decoder_lstm_{i}", width, **lstm))
        self._query = make(layers.Dense, "attention_query", width, use_bias=False)
        self._key = make(layers.Dense, "attention_key", width, use_bias=False)
        self._attention = make(layers.AdditiveAttention, "attention")
        self._logits = make(layers.Dense, "logits", vocabulary)
        self._dropout = dropout

    def _make(self, layer, name, *arguments, **options):
        if self._model is not None:
            return self._model.get_layer(name)
        return layer(*arguments, name=name, **options)

    def _drop(self, x):
        return layers.Dropout(self._dropout)(x) if self._dropout else x

    def encode(self, source):
        """Encodes the source sentences.

        Returns:
            Float tensor of shape (batch, words, width). With a single layer, which is
            bidirectional, the last dimension is twice as large.
        """
        mask = ops.not_equal(source, PAD)
        x = self._source(source)
        for i, layer in enumerate(self._encoder):
            y = layer(self._drop(x), mask=mask)
            x = x + y if i >= 2 else y
        return x

    def decode(self, target, memory, mask, states):
        """Predicts the word after each target word.

        Args:
            target: Integer tensor of shape (batch, words).
            memory: Tensor returned by `encode`.
            mask: Boolean tensor of shape (batch, source words). False for padding.
            states: List with one item per layer: its two states, or `None` for zeros.

        Returns:
            Tuple: logits of the next words, and a list of each layer's two states after the last
            word.
        """
        x = self._target(target)
        new_states, context = [], None
        for i, layer in enumerate(self._decoder):
            inputs = self._drop(x)
            if context is not None:
                inputs = ops.concatenate([inputs, context], axis=-1)
            y, *new_state = layer(inputs, initial_state=states[i])
            new_states.append(new_state)
            if context is None:
                keys = self._key(memory)
                context = self._attention([self._query(y), memory, keys], mask=[None, mask])
            x = x + y if i >= 2 else y
        return self._logits(ops.concatenate([x, context], axis=-1)), new_states


def halves(model):
    """Splits a trained model into an encoder and a one-step decoder, for beam search.

    Both share the layers of the trained model.

    Args:
        model: Model returned by `build`, or loaded from a file of it with `keras_trim.load`.

    Returns:
        Tuple of two Keras models. The encoder maps `source` to the memory. The decoder maps one
        word (batch, 1), the memory, its mask and all states to logits (batch, vocabulary) and the
        new states.
    """
    parts = _Layers(model=model)
    source = keras.Input((None,), dtype="int32")
    memory = parts.encode(source)
    encoder = keras.Model(source, memory)
    word = keras.Input((1,), dtype="int32")
    memory_input = keras.Input((None, memory.shape[-1]))
    mask = keras.Input((None,), dtype="bool")
    states = [[keras.Input((parts.width,)) for _ in range(2)] for _ in range(parts.depth)]
    logits, new_states = parts.decode(word, memory_input, mask, states)
    outputs = [state for pair in new_states for state in pair]
    inputs = [word, memory_input, mask, *(state for pair in states for state in pair)]
    return encoder, keras.Model(inputs, [logits[:, 0], *outputs])


@keras.saving.register_keras_serializable("keras_trim_experiments")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy with label smoothing, averaged over all words except padding.

    Args:
        smoothing: Float. The probability that is spread evenly over the vocabulary.
    """

    def __init__(self, smoothing=0.1, name="smoothed_cross_entropy"):
        super().__init__(name=name, reduction="sum")
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        log_probabilities = ops.log_softmax(y_pred, axis=-1)
        right = ops.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]
        loss = -(1 - self.smoothing) * right - self.smoothing * ops.mean(log_probabilities, -1)
        is_word = ops.cast(ops.not_equal(labels, PAD), loss.dtype)
        return loss * is_word / ops.maximum(ops.sum(is_word), 1.0)

    def get_config(self):
        return {"smoothing": self.smoothing, "name": self.name}
