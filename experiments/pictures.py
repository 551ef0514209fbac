"""Pictures to train on and to test: arrays in memory, or ImageNet's layout of folders.

Reading one picture is a function of its place and a random number generator, so that training
resumes in the middle of an epoch, and several processes can read.
"""

import math
import pathlib

import numpy as np

from benchmarks import _packs

_ENDINGS = {".jpg", ".jpeg", ".png"}
_SHIFT = 4  # pixels that small pictures are moved by


class Arrays:
    """Pictures in memory.

    Args:
        x: uint8 array, (pictures, height, width, 3).
        labels: Integers, (pictures,).
    """

    def __init__(self, x, labels):
        self._x, self.labels = x, labels
        self.num_classes = int(labels.max()) + 1

    def read(self, i, size, rng=None):
        """uint8 (size, size, 3): picture `i`; with `rng` augmented."""
        x = self._x[i]
        if x.shape[0] <= 64:
            return _resized(x if rng is None else moved(x, rng), size)
        from PIL import Image

        return cut(Image.fromarray(x), size, rng)


class Folder:
    """Pictures as files: `root/<class>/*.jpg`; classes in the order of their names."""

    def __init__(self, root):
        root = pathlib.Path(root)
        classes = sorted(path.name for path in root.iterdir() if path.is_dir())
        self._files, labels = [], []
        for label, name in enumerate(classes):
            files = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in _ENDINGS)
            self._files += files
            labels += [label] * len(files)
        if not self._files:
            raise ValueError(f"No pictures were found in {root}/<class>/")
        self.labels = np.array(labels)
        self.num_classes = len(classes)

    def read(self, i, size, rng=None):
        """uint8 (size, size, 3): picture `i`; with `rng` augmented."""
        from PIL import Image

        with Image.open(self._files[i]) as picture:
            return cut(picture.convert("RGB"), size, rng)


class Part:
    """Some pictures of a source.

    Args:
        source: `Arrays` or `Folder`.
        chosen: Integers, or `None` (all).
    """

    def __init__(self, source, chosen=None):
        self._source = source
        self._chosen = np.arange(len(source.labels)) if chosen is None else chosen
        self.labels = source.labels[self._chosen]

    def __len__(self):
        return len(self._chosen)

    def read(self, indices, size, rng=None):
        """Float32 (pictures, size, size, 3) in [-1, 1]."""
        pictures = [self._source.read(self._chosen[i], size, rng) for i in indices]
        return np.stack(pictures).astype("float32") / 127.5 - 1


def load(data):
    """Dict of `Part`: `"train"`, `"val"` (to choose settings on), `"test"`.

    Args:
        data: `"cifar10"`, the path of a pack of JPEGs, or of a folder with `train` and `val`. What
            is held out to choose settings on is a tenth of the training pictures, if the data
            have no such part; a folder's `val` is what is tested.
    """
    if data == "cifar10":
        import keras

        (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
        return {**_held_out(Arrays(x, y[:, 0])), "test": Part(Arrays(x_test, y_test[:, 0]))}
    path = pathlib.Path(data)
    if path.is_dir():
        return {**_held_out(Folder(path / "train")), "test": Part(Folder(path / "val"))}
    splits = np.unique(np.load(path)["split"])
    size = None if path.name.startswith("cifar") else 160
    parts = {split: Arrays(*_packs.images(path, int(split), size)) for split in splits}
    if 1 in parts:
        return {"train": Part(parts[0]), "val": Part(parts[1]), "test": Part(parts[2])}
    return {**_held_out(parts[0]), "test": Part(parts[2])}


def _held_out(source):
    order = np.random.default_rng(0).permutation(len(source.labels))
    count = math.ceil(len(order) / 10)
    return {"train": Part(source, order[count:]), "val": Part(source, order[:count])}


def moved(x, rng):
    """A picture moved by up to four pixels; half of them mirrored."""
    padded = np.pad(x, ((_SHIFT, _SHIFT), (_SHIFT, _SHIFT), (0, 0)))
    top, left = rng.integers(0, 2 * _SHIFT + 1, 2)
    x = padded[top : top + x.shape[0], left : left + x.shape[1]]
    return x[:, ::-1] if rng.random() < 0.5 else x


def cut(picture, size, rng=None):
    """A square of a picture, as networks for ImageNet are trained and tested on.

    With `rng`: 8 to 100 % of the area, 3:4 to 4:3, half of them mirrored (Szegedy et al., 2015,
    https://arxiv.org/abs/1409.4842, section 6). Without: the middle, 87.5 % of the shorter side.
    """
    from PIL import Image

    width, height = picture.size
    if rng is None:
        side = min(width, height) * 0.875
        box = [(width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2]
    else:
        area = width * height * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w = min(width, math.sqrt(area * ratio))
        h = min(height, math.sqrt(area / ratio))
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        box = [left, top, left + w, top + h]
    x = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=tuple(box)))
    return x[:, ::-1] if rng is not None and rng.random() < 0.5 else x


def _resized(x, size):
    if x.shape[0] == size:
        return x
    from PIL import Image

    return np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BILINEAR))
