"""GNMT: translation by stacks of LSTM layers with attention, as an ordinary Keras model.

Wu et al., "Google's neural machine translation system", https://arxiv.org/abs/1609.08144. The first
encoder layer runs in both directions; from the third layer on there are residual connections. Here,
as in the version of MLPerf, attention (additive: Bahdanau et al., https://arxiv.org/abs/1409.0473)
is asked by what the first decoder layer gives in the same step, and goes to all layers above it; so
training computes layer by layer, all words at once.

Sentences are rows of subword numbers, filled up with `PAD`. What is filled up is masked: a sentence
is translated as it is alone.
"""

import keras
from keras import layers, ops

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3


def build(vocabulary, width=1024, depth=8, dropout=0.2):
    """The network that is trained: it sees the right words before each one.

    Args:
        vocabulary: Integer. Number of subwords, shared by both languages.
        width: Integer. Units of each LSTM layer; 1024 in the paper.
        depth: Integer, at least 2. Layers of the encoder, and of the decoder; 8 in the paper.
        dropout: Float. Of the inputs of each LSTM layer.

    Returns:
        Keras model of two int32 inputs, `source` (batch, words) and `target` (batch, words:
        `BEGIN`, then the translation). Its output is logits (batch, words, vocabulary) of the next
        words.
    """
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    parts = _Parts(vocabulary, width, depth, dropout)
    memory = parts.encode(source)
    states = [None] * depth
    logits, _ = parts.decode(target, memory, ops.not_equal(source, PAD), states)
    return keras.Model({"source": source, "target": target}, logits, name="gnmt")


class _Parts:
    """The layers by name: new ones, or those of a model that was built before."""

    def __init__(self, vocabulary=None, width=None, depth=None, dropout=0.0, model=None):
        self._model = model
        if model is not None:
            depth = sum(layer.name.startswith("decoder_lstm") for layer in model.layers)
            width = model.get_layer("decoder_lstm_1").units
        self.width, self.depth = width, depth
        make = self._make
        self._source = make(layers.Embedding, "source_embedding", vocabulary, width)
        self._target = make(layers.Embedding, "target_embedding", vocabulary, width)
        both = None if model else layers.LSTM(width, return_sequences=True)
        self._encoder = [make(layers.Bidirectional, "encoder_lstm_1", both)]
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
        """Float (batch, words, width, or twice that with a single layer)."""
        mask = ops.not_equal(source, PAD)
        x = self._source(source)
        for i, layer in enumerate(self._encoder):
            y = layer(self._drop(x), mask=mask)
            x = x + y if i >= 2 else y
        return x

    def decode(self, target, memory, mask, states):
        """Logits of the next words, and the states of all layers after the last word.

        Args:
            target: Integers (batch, words).
            memory: What `encode` returned.
            mask: Bool (batch, words): which of it are words.
            states: List: for each layer a list of its two states, or `None` (the beginning).
        """
        x = self._target(target)
        ends, context = [], None
        for i, layer in enumerate(self._decoder):
            inputs = self._drop(x)
            if context is not None:
                inputs = ops.concatenate([inputs, context], axis=-1)
            y, *end = layer(inputs, initial_state=states[i])
            ends.append(end)
            if context is None:
                keys = self._key(memory)
                context = self._attention([self._query(y), memory, keys], mask=[None, mask])
            x = x + y if i >= 2 else y
        return self._logits(ops.concatenate([x, context], axis=-1)), ends


def halves(model):
    """The two models that translate: they share the layers of the model that was trained.

    Args:
        model: What `build` made, or `keras_trim.load` of it.

    Returns:
        Tuple of Keras models: of `source` -> memory; and of one word (batch, 1), memory, mask and
        all states -> logits (batch, vocabulary) and all states.
    """
    parts = _Parts(model=model)
    source = keras.Input((None,), dtype="int32")
    memory = parts.encode(source)
    encoder = keras.Model(source, memory)
    word = keras.Input((1,), dtype="int32")
    given = keras.Input((None, memory.shape[-1]))
    mask = keras.Input((None,), dtype="bool")
    states = [[keras.Input((parts.width,)) for _ in range(2)] for _ in range(parts.depth)]
    logits, ends = parts.decode(word, given, mask, states)
    flat = [state for pair in ends for state in pair]
    inputs = [word, given, mask, *(state for pair in states for state in pair)]
    return encoder, keras.Model(inputs, [logits[:, 0], *flat])


@keras.saving.register_keras_serializable("keras_trim_experiments")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy with smoothed labels, averaged over the words that are not `PAD`.

    Args:
        smoothing: Float. The share that is spread over all words alike.
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
