"""GNMT: what is filled up changes nothing, one word at a time equals all at once."""

import keras
import numpy as np
import pytest

from experiments import gnmt
from experiments.beam_search import Translator, pad, penalty

VOCABULARY = 11
SENTENCES = [[5, 6, 7], [8, 4, 9, 10, 5, 6, 4], [7], [4, 5, 9, 8, 10]]


@pytest.fixture
def model():
    return _build(end=-8.0)


def _build(end):
    """A model with random weights; the lower `end`, the longer its translations."""
    keras.utils.set_random_seed(1)
    model = gnmt.build(VOCABULARY, width=6, depth=3, dropout=0.5)
    # Larger than at the beginning, so that words differ in more than rounding.
    model.set_weights([6 * weight for weight in model.get_weights()])
    kernel, bias = model.get_layer("logits").get_weights()
    bias[gnmt.END] = end
    model.get_layer("logits").set_weights([kernel, bias])
    return model


def _logits(model, source, target):
    return model.predict_on_batch({"source": source, "target": target})


def test_a_padded_sentence_has_the_logits_of_the_same_sentence_alone(model):
    target = np.array([[gnmt.BEGIN, 4, 9, 5]], "int32")
    alone = _logits(model, np.array([SENTENCES[0]], "int32"), target)
    padded = _logits(model, pad(SENTENCES), np.repeat(target, 4, axis=0))
    assert alone.shape == (1, 4, VOCABULARY)
    np.testing.assert_allclose(padded[:1], alone, rtol=1e-4, atol=1e-5)
    # The test would see a difference: another sentence has other logits.
    assert np.abs(padded[1] - alone[0]).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("beam", [1, 3])
def test_a_padded_sentence_translates_as_the_same_sentence_alone(model, beam):
    together = Translator(model, beam, batch_size=4)(SENTENCES)
    alone = Translator(model, beam, batch_size=1)
    assert [alone([sentence])[0] for sentence in SENTENCES] == together
    assert len({tuple(translation) for translation in together}) > 1


def test_steps_give_the_logits_of_the_model_that_was_trained(model):
    source = pad(SENTENCES[:2])
    target = np.array([[gnmt.BEGIN, 4, 9, 5], [gnmt.BEGIN, 7, 7, 10]], "int32")
    expected = _logits(model, source, target)
    encoder, step = gnmt.halves(model)
    memory = encoder.predict_on_batch(source)
    states = [np.zeros((2, 6), "float32")] * 6
    for i in range(target.shape[1]):
        word = target[:, i : i + 1]
        logits, *states = step.predict_on_batch([word, memory, source != gnmt.PAD, *states])
        np.testing.assert_allclose(logits, expected[:, i], rtol=1e-4, atol=1e-5)


def test_a_wide_beam_finds_the_best_translation_of_all():
    """Against every translation of up to two words, each with the score of its own logits."""
    model = _build(end=0.0)
    source = np.array([[5, 6]], "int32")
    words = range(4, VOCABULARY)
    candidates = [[], *([a] for a in words), *([a, b] for a in words for b in words)]
    rows = [[gnmt.BEGIN, *c] for c in candidates]
    logits = _logits(model, np.repeat(source, len(rows), axis=0), pad(rows, 3))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def score(i):
        asked = [*candidates[i], gnmt.END]
        total = sum(log_p[i, k, word] for k, word in enumerate(asked))
        return total / penalty(len(asked), 0.6)

    best = max(range(len(candidates)), key=score)
    (found,) = Translator(model, beam=40, batch_size=1)([[5, 6]])
    assert found == candidates[best]


def test_smoothed_loss_by_hand():
    logits = np.log(np.array([[[0.1, 0.2, 0.3, 0.4], [0.25] * 4]], "float32"))
    labels = np.array([[3, gnmt.PAD]])
    expected = -0.9 * np.log(0.4) - 0.1 * np.mean(np.log([0.1, 0.2, 0.3, 0.4]))
    loss = gnmt.SmoothedCrossEntropy(0.1)(labels, logits)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), expected, rtol=1e-5)
