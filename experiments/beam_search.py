"""Beam search for the translation model."""

import numpy as np

from experiments.gnmt import BEGIN, END, PAD, halves

_BUCKET = 8  # sentences are padded to a multiple of this many words: new lengths recompile


class Translator:
    """Translates sentences given as lists of subword IDs.

    Args:
        model: Model returned by `experiments.gnmt.build`.
        beam: Integer. Beam width; 1 is greedy search.
        alpha: Float. Exponent of the length penalty (Wu et al., section 7).
        batch_size: Integer. Number of sentences per batch.
    """

    def __init__(self, model, beam=4, alpha=0.6, batch_size=32):
        self._encoder, self._step = halves(model)
        self._beam, self._alpha, self._batch_size = beam, alpha, batch_size

    def __call__(self, sentences):
        """Returns the translations as lists of subword IDs, without `BEGIN` and `END`."""
        order = np.argsort([len(sentence) for sentence in sentences], kind="stable")
        translations = [None] * len(sentences)
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            batch = [sentences[i] for i in chosen]
            # Fill up the last batch: another batch size would recompile the model.
            batch += [batch[-1]] * (self._batch_size - len(batch))
            for i, translation in zip(chosen, self._translate(pad(batch)), strict=False):
                translations[i] = translation
        return translations

    def _translate(self, source):
        beam, count = self._beam, len(source)
        repeat = np.repeat(np.arange(count), beam)
        memory = np.asarray(self._encoder.predict_on_batch(source))[repeat]
        mask = (source != PAD)[repeat]
        states = [
            np.zeros((count * beam, tensor.shape[-1]), "float32")
            for tensor in self._step.inputs[3:]
        ]
        words = np.full((count * beam, 1), BEGIN, "int32")
        history = np.zeros((count * beam, 0), "int32")
        scores = np.tile([0.0] + [-np.inf] * (beam - 1), (count, 1))
        best = [(-np.inf, [])] * count
        longest = 2 * (source != PAD).sum(axis=1) + 5  # maximum length, `END` included
        for length in range(1, max(longest) + 1):
            logits, *states = self._step.predict_on_batch([words, memory, mask, *states])
            total = scores[..., None] + _log_softmax(np.asarray(logits)).reshape(count, beam, -1)
            ended = total[..., END] / penalty(length, self._alpha)
            for i in range(count):
                k = int(ended[i].argmax())
                if length <= longest[i] and ended[i, k] > best[i][0]:
                    best[i] = (ended[i, k], history[i * beam + k].tolist())
            total[..., [PAD, BEGIN, END]] = -np.inf
            scores, rows, words = _choose(total, beam)
            history = np.concatenate([history[rows], words], axis=1)
            states = [np.asarray(state)[rows] for state in states]
            # Log-probabilities only decrease, and the penalty is largest at the maximum length,
            # so this bounds the score that an open translation can still reach.
            reachable = scores.max(-1) / penalty(longest, self._alpha)
            if np.all((reachable <= [score for score, _ in best]) | (length >= longest)):
                break
        return [translation for _, translation in best]


def penalty(length, alpha):
    """Returns the length penalty that divides the log-probability (Wu et al., equation 14)."""
    return ((5 + length) / 6) ** alpha


def pad(sentences, length=None, multiple=_BUCKET):
    """Pads sentences with `PAD` to the same length.

    Args:
        sentences: List of lists of subword IDs.
        length: Integer. Length to pad to. Default: that of the longest sentence.
        multiple: Integer. The length is rounded up to a multiple of it.

    Returns:
        int32 array of shape (sentences, words).
    """
    length = length or max(1, max(map(len, sentences)))
    rows = np.full((len(sentences), -(-length // multiple) * multiple), PAD, "int32")
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = sentence
    return rows


def _choose(total, beam):
    """Selects the best continuations of each sentence.

    Args:
        total: Float array of shape (sentences, beam, vocabulary): log-probabilities.

    Returns:
        Tuple of arrays: log-probabilities (sentences, beam), the batch rows that are continued
        (sentences * beam,), and the next words (sentences * beam, 1).
    """
    count, _, vocabulary = total.shape
    flat = total.reshape(count, -1)
    chosen = np.argpartition(-flat, beam - 1, axis=1)[:, :beam]
    scores = np.take_along_axis(flat, chosen, axis=1)
    rows = (np.arange(count)[:, None] * beam + chosen // vocabulary).ravel()
    return scores, rows, (chosen % vocabulary).reshape(-1, 1).astype("int32")


def _log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
