"""The two small networks of `examples/`: a CNN on MNIST and an LSTM on movie reviews.

python -m experiments.small --model mnist_cnn --data path/to/mnist.npz
python -m experiments.small --model imdb_lstm --data path/to/movie_reviews.tsv
"""

import numpy as np

from examples import imdb_lstm, mnist_cnn
from experiments import command
from experiments.task import Settings, Task

MNIST = Settings(epochs=5, rates=(1e-3, 3e-4), dense_epochs=8)
# An epoch has 59 steps only.
REVIEWS = Settings(epochs=10, rates=(1e-3, 3e-4), dense_epochs=6)
QUICK = Settings(epochs=2, dense_epochs=1)


class Small(Task):
    """Base class of both tasks, whose data fits in memory."""

    def __init__(self, name, settings, train, test, about, quick):
        self.name = name
        self.settings = QUICK if quick else settings
        self.targets = (0.8,) if quick else self.goal.targets
        self.batch_size = 8 if quick else 128
        x, y = train
        limit = 24 if quick else None
        order = np.random.default_rng(0).permutation(len(x))
        held_out, rest = np.split(order, [len(x) // 10])
        self._train = x[rest][:limit], y[rest][:limit]
        self._parts = {"val": (x[held_out][:limit], y[held_out][:limit])}
        self._parts["test"] = tuple(each[:limit] for each in test)
        self.about_data = f"{about}: {len(rest):,} training and {len(test[0]):,} test examples"

    def num_batches(self):
        return len(self._train[0]) // self.batch_size

    def batch(self, seed, epoch, index):
        order = np.random.default_rng([seed, epoch]).permutation(len(self._train[0]))
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        return tuple(each[chosen] for each in self._train)

    def score(self, model, part):
        x, y = self._parts[part]
        outputs = model.predict(x, batch_size=500, verbose=0)
        predictions = outputs.argmax(-1) if outputs.shape[-1] > 1 else outputs[:, 0] > 0.5
        return 100 * float(np.mean(predictions == y))

    def examples(self):
        return self._parts["val"][0][:8]


class Mnist(Small):
    first_layer = "conv2d"

    def __init__(self, data, quick=False):
        train, test = mnist_cnn.load_mnist(data, None)
        if quick:
            self.first_layer = None
        super().__init__("mnist_cnn", MNIST, train, test, "MNIST", quick)

    def build(self, keras):
        return mnist_cnn.build_model()

    def loss(self, keras):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Reviews(Small):
    def __init__(self, data, quick=False):
        import keras

        parts = imdb_lstm.load_tsv(data, None)
        padded = [
            (keras.utils.pad_sequences(words, maxlen=imdb_lstm.LENGTH), labels)
            for words, labels in parts
        ]
        about = "Sentences of movie reviews (from VADER), in place of IMDB"
        super().__init__("imdb_lstm", REVIEWS, *padded, about, quick)

    def build(self, keras):
        return imdb_lstm.build_model()

    def loss(self, keras):
        return keras.losses.BinaryCrossentropy()


def make_task(arguments):
    task = {"mnist_cnn": Mnist, "imdb_lstm": Reviews}[arguments.model]
    return task(arguments.data, arguments.quick)


def parse(argv=None):
    parser = command.parser(__doc__)
    parser.add_argument("--model", choices=("mnist_cnn", "imdb_lstm"), required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(parse(), make_task)
