"""Pruning embeddings and recurrent layers: an LSTM that classifies reviews as positive or not.

    KERAS_BACKEND=jax python examples/imdb_lstm.py    # or torch; TensorFlow without it
    python examples/imdb_lstm.py --data reviews.tsv    # your own texts instead of a download

The TSV file has columns `sentiment` (a number, above 0 for positive) and `text`. This prunes the
embedding table, both kernels of the LSTM and that of the last layer, without naming any of them.
"""

import argparse
import collections
import csv
import math
import re

import keras
import numpy as np
from keras import layers

import keras_trim

BATCH_SIZE = 64
VOCABULARY = 5000  # the most frequent words; 0 is padding, 1 stands for all other words
LENGTH = 80  # the number of words of a review that the model sees


def load_imdb(limit):
    train, test = keras.datasets.imdb.load_data(num_words=VOCABULARY)
    return [(words[:limit], labels[:limit]) for words, labels in (train, test)]


def load_tsv(path, limit):
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    # Shuffle the rows: the file may be sorted.
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))][:limit]
    texts = [re.findall(r"[a-z']+", row["text"].lower()) for row in rows]
    labels = np.array([float(row["sentiment"]) > 0 for row in rows], "int32")
    num_train = len(rows) * 4 // 5
    counts = collections.Counter(word for text in texts[:num_train] for word in text)
    numbers = {word: 2 + i for i, (word, _) in enumerate(counts.most_common(VOCABULARY - 2))}
    words = [[numbers.get(word, 1) for word in text] for text in texts]
    return [(words[:num_train], labels[:num_train]), (words[num_train:], labels[num_train:])]


def build_model():
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            layers.Embedding(VOCABULARY, 32),
            layers.LSTM(32),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def compile_model(model):
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="path of a TSV file (default: download IMDB)")
    parser.add_argument("--epochs", type=int, default=2, help="of dense training, then of pruning")
    parser.add_argument("--limit", type=int, help="use only this many reviews")
    args = parser.parse_args(argv)

    keras.utils.set_random_seed(0)
    train, test = load_tsv(args.data, args.limit) if args.data else load_imdb(args.limit)
    (x_train, y_train), (x_test, y_test) = (
        (keras.utils.pad_sequences(words, maxlen=LENGTH), labels) for words, labels in (train, test)
    )
    model = build_model()
    compile_model(model)
    model.fit(x_train, y_train, batch_size=BATCH_SIZE, epochs=args.epochs)
    dense_accuracy = model.evaluate(x_test, y_test, verbose=0)[1]

    steps = args.epochs * math.ceil(len(x_train) / BATCH_SIZE)
    schedule = keras_trim.PolynomialDecay(
        initial_sparsity=0.3, final_sparsity=0.8, begin_step=0, end_step=steps // 2, frequency=20
    )
    keras_trim.prune_low_magnitude(model, schedule)
    compile_model(model)  # compile again, so that the optimizer's steps count from 0
    model.fit(
        x_train,
        y_train,
        batch_size=BATCH_SIZE,
        epochs=args.epochs,
        callbacks=[keras_trim.UpdatePruningStep()],
    )
    print(keras_trim.sparsity_report(model))
    keras_trim.strip_pruning(model)
    pruned_accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
    print(f"test accuracy: dense {dense_accuracy:.2%}, pruned {pruned_accuracy:.2%}")


if __name__ == "__main__":
    main()
