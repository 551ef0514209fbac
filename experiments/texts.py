"""Sentence pairs and their subwords."""

import io
import pathlib
import tarfile

from experiments.gnmt import BEGIN, END, PAD, UNKNOWN

# The training, validation and test files in the pack, which README.md describes. All are captions
# of photos: a network trained on them cannot translate the news in the pack.
TRAIN = ("multi30k/train",)
VALIDATION = "multi30k/val"
TESTS = ("multi30k/test_2016_flickr", "multi30k/test_2017_flickr")
# The same in a folder of your own: `train.en`, `train.de`, ...
FOLDER = {"train": ("train",), "val": "val", "test": ("test",)}


class Pairs:
    """Reads sentences in two languages, one per line.

    Args:
        data: Path of a folder or a `.tar.gz` with files that end in `.en` and `.de`.
        direction: `"en-de"` or `"de-en"`.
    """

    def __init__(self, data, direction):
        self._data, self._languages = pathlib.Path(data), direction.split("-")

    @property
    def names(self):
        """Dict: `"train"`, `"val"`, `"test"` -> names of files, without the language."""
        if self._data.is_dir() and not (self._data / "multi30k").is_dir():
            return FOLDER
        return {"train": TRAIN, "val": VALIDATION, "test": TESTS}

    def read(self, name):
        """Returns a tuple of two lists of strings: source and target sentences."""
        return tuple(self._lines(f"{name}.{language}") for language in self._languages)

    def _lines(self, name):
        if self._data.is_dir():
            text = (self._data / name).read_text(encoding="utf-8")
        else:
            with tarfile.open(self._data) as archive:
                text = archive.extractfile(name).read().decode()
        return text.rstrip("\n").split("\n")


class Subwords:
    """A subword vocabulary that both languages share (SentencePiece, byte-pair encoding).

    Args:
        path: `pathlib.Path` of the SentencePiece model, which is trained if it does not exist.
        sentences: Function that returns the list of strings to train it on.
        size: Integer. Maximum number of subwords.
    """

    def __init__(self, path, sentences, size):
        import sentencepiece

        if not path.exists():
            model = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences()),
                model_writer=model,
                vocab_size=size,
                hard_vocab_limit=False,
                model_type="bpe",
                pad_id=PAD,
                unk_id=UNKNOWN,
                bos_id=BEGIN,
                eos_id=END,
                minloglevel=2,
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(model.getvalue())
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.size = self._model.vocab_size()

    def encode(self, sentences):
        """Returns a list of lists of subword IDs, without `BEGIN` and `END`."""
        return self._model.encode(sentences)

    def decode(self, rows):
        """Returns the sentences as a list of strings."""
        return self._model.decode(rows)
