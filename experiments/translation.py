"""Translation between English and German with GNMT.

    python -m experiments.translation --direction en-de --data path/to/text_ende.tar.gz

`--data` is the pack (README.md), or a folder with `train.en`, `train.de`, `val.en`, ..., `test.de`.
TFMOT's guide trains on the 4.5 million sentences of WMT16 and has eight layers of 1024 units
(`--depth 8 --width 1024`). The pack has a hundredth of these sentences, and 4,000 subwords.
"""

import itertools
import pathlib

import numpy as np

from experiments import command
from experiments.task import Settings, Task
from experiments.texts import Pairs, Subwords

FULL = Settings(epochs=5, rates=(1e-3, 3e-4), dense_epochs=30, clip_norm=1.0)
# One rate, that of dense training: trials would cost as much as two rows. At 1e-3, weights of this
# size do not move far enough to recover from pruning.
SMALL = Settings(epochs=3, rates=(6e-3,), dense_epochs=7, dense_rate=6e-3, clip_norm=1.0)
QUICK = Settings(epochs=2, dense_epochs=1, clip_norm=1.0)
_BUCKET = 4  # sentences are padded to a multiple of this many words
_LONGEST = 64  # longer sentences are left out of training


class Translation(Task):
    def __init__(self, direction, data, work, width=256, depth=2, quick=False):
        self.name = f"translation_{direction}"
        is_small = pathlib.Path(data).is_file()
        self.settings = QUICK if quick else SMALL if is_small else FULL
        self.batch_size = 4 if quick else 64 if is_small else 128
        self.targets = (0.8,) if quick else self.goal.targets
        self._quick, self._width, self._depth = quick, width, depth
        pairs = Pairs(data, direction)
        names = pairs.names
        limit = {"train": 400, "val": 2, "test": 2} if quick else dict.fromkeys(names)
        train = [
            list(itertools.chain(*sentences))[: limit["train"]]
            for sentences in zip(*map(pairs.read, names["train"]), strict=True)
        ]
        self._subwords = Subwords(
            pathlib.Path(work, "quick.subwords" if quick else f"{self.name}.subwords"),
            lambda: [sentence for language in train for sentence in language],
            300 if quick else 4000 if is_small else 8000,
        )
        self._train = self._encoded(train)
        self._buckets = self._sorted_batches()
        self._parts = {
            "val": [[each[: limit["val"]] for each in pairs.read(names["val"])]],
            "test": [
                [each[: limit["test"]] for each in pairs.read(name)] for name in names["test"]
            ],
        }
        self.about_data = (
            f"{len(train[0]):,} sentence pairs ({', '.join(names['train'])}), tested on "
            f"{' and '.join(names['test'])}; {depth} + {depth} layers of {width} units, "
            f"{self._subwords.size:,} subwords"
        )
        self.test_names = names["test"]

    def _encoded(self, pair):
        """Returns a list of (source, target) subword IDs, without empty and overlong pairs."""
        rows = zip(*map(self._subwords.encode, pair), strict=True)
        return [row for row in rows if 0 < max(map(len, row)) < _LONGEST]

    def _sorted_batches(self):
        """Groups pairs of similar length: indices of shape (batches, batch size)."""
        lengths = [max(len(source), len(target) + 1) for source, target in self._train]
        order = np.argsort([-(-length // _BUCKET) for length in lengths], kind="stable")
        count = len(order) // self.batch_size
        return order[: count * self.batch_size].reshape(count, self.batch_size)

    def build(self, keras):
        from experiments import gnmt

        return gnmt.build(self._subwords.size, self._width, self._depth)

    def loss(self, keras):
        from experiments.gnmt import SmoothedCrossEntropy

        return SmoothedCrossEntropy()

    def num_batches(self):
        return 3 if self._quick else len(self._buckets)

    def batch(self, seed, epoch, index):
        """Returns a batch of pairs of similar length, grouped anew in each epoch."""
        rng = np.random.default_rng([seed, epoch])
        # From the first two batches, TensorFlow learns which dimensions vary. So they are the
        # shortest and the longest.
        last = len(self._buckets) - 1
        order = [0, last, *rng.permutation(np.arange(1, last))]
        return self._arrays(self._shuffled(rng)[order[index]])

    def _shuffled(self, rng):
        """Returns the batches after shuffling the pairs of each length."""
        flat = self._buckets.ravel()
        lengths = np.array(
            [-(-max(len(s), len(t) + 1) // _BUCKET) for s, t in (self._train[i] for i in flat)]
        )
        return flat[np.lexsort([rng.random(len(flat)), lengths])].reshape(self._buckets.shape)

    def _arrays(self, indices):
        from experiments.beam_search import pad
        from experiments.gnmt import BEGIN, END

        pairs = [self._train[i] for i in indices]
        length = max(max(len(source), len(target) + 1) for source, target in pairs)
        source = pad([source for source, _ in pairs], length, _BUCKET)
        decoder_input = pad([[BEGIN, *target] for _, target in pairs], length, _BUCKET)
        labels = pad([[*target, END] for _, target in pairs], length, _BUCKET)
        return {"source": source, "target": decoder_input}, labels

    def score(self, model, part):
        """Returns BLEU on the validation set (greedy) or the first test set (beam search)."""
        return self._bleu(model, part, 0)

    def report(self, model):
        tests = {name: self._bleu(model, "test", i) for i, name in enumerate(self.test_names)}
        return {
            "val": self.score(model, "val"),
            "test": tests[self.test_names[0]],
            "tests": tests,
            "signature": _signature(),
        }

    def _bleu(self, model, part, i):
        from experiments.beam_search import Translator

        source, target = self._parts[part][i]
        beam = 1 if part == "val" or self._quick else 4
        translate = Translator(model, beam, batch_size=2 if self._quick else 32)
        translations = self._subwords.decode(translate(self._subwords.encode(source)))
        return _metric().corpus_score(translations, [target]).score

    def examples(self):
        return self._arrays(range(2))[0]


def _metric():
    from sacrebleu.metrics import BLEU

    return BLEU()


def _signature():
    """Returns sacrebleu's signature, which says how BLEU was computed."""
    bleu = _metric()
    bleu.corpus_score(["a b c d"], [["a b c d"]])
    return str(bleu.get_signature())


def make_task(arguments):
    return Translation(
        arguments.direction,
        arguments.data,
        arguments.work,
        arguments.width,
        arguments.depth,
        quick=arguments.quick,
    )


def parse(argv=None):
    parser = command.parser(__doc__)
    parser.add_argument("--direction", choices=("en-de", "de-en"), required=True)
    parser.add_argument("--width", type=int, default=256, help="units of each LSTM layer")
    parser.add_argument("--depth", type=int, default=2, help="layers of encoder and decoder, each")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(parse(), make_task)
