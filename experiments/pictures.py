"""Image data sets: arrays in memory, or folders in ImageNet's layout.

What is read depends only on the index and the random generator, so training can resume in the
middle of an epoch, and several processes can read.
"""

import math
import pathlib

import numpy as np

from benchmarks import _packs

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_MAX_SHIFT = 4  # pixels, in augmenting small images


class Arrays:
    """Images in memory.

    Args:
        x: uint8 array of shape (images, height, width, 3).
        labels: Integer array of shape (images,).
    """

    def __init__(self, x, labels):
        self._x, self.labels = x, labels
        self.num_classes = int(labels.max()) + 1

    def read(self, i, size, rng=None):
        """Returns image `i` as uint8 (size, size, 3), augmented if `rng` is given."""
        x = self._x[i]
        if x.shape[0] <= 64:
            return _resized(x if rng is None else moved(x, rng), size)
        from PIL import Image

        return cut(Image.fromarray(x), size, rng)


class Folder:
    """Images in files `root/<class>/*.jpg`. Labels follow the alphabetical order of classes."""

    def __init__(self, root):
        root = pathlib.Path(root)
        classes = sorted(path.name for path in root.iterdir() if path.is_dir())
        self._files, labels = [], []
        for label, name in enumerate(classes):
            files = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in _SUFFIXES)
            self._files += files
            labels += [label] * len(files)
        if not self._files:
            raise ValueError(f"No images were found in {root}/<class>/")
        self.labels = np.array(labels)
        self.num_classes = len(classes)

    def read(self, i, size, rng=None):
        """Returns image `i` as uint8 (size, size, 3), augmented if `rng` is given."""
        from PIL import Image

        with Image.open(self._files[i]) as image:
            return cut(image.convert("RGB"), size, rng)


class Part:
    """A subset of an image data set.

    Args:
        source: `Arrays` or `Folder`.
        chosen: Integer array of indices, or `None` for all images.
    """

    def __init__(self, source, chosen=None):
        self._source = source
        self._chosen = np.arange(len(source.labels)) if chosen is None else chosen
        self.labels = source.labels[self._chosen]

    def __len__(self):
        return len(self._chosen)

    def read(self, indices, size, rng=None):
        """Returns float32 (images, size, size, 3) in [-1, 1], augmented if `rng` is given."""
        images = [self._source.read(self._chosen[i], size, rng) for i in indices]
        return np.stack(images).astype("float32") / 127.5 - 1


def load(data):
    """Loads a data set and splits it.

    A folder's `val` is the test set. Where the data has no validation set of its own, a tenth of
    the training images is held out for validation.

    Args:
        data: `"cifar10"`, the path of a pack of JPEGs, or the path of a folder with `train` and
            `val`.

    Returns:
        Dict: `"train"`, `"val"`, `"test"` -> `Part`.
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
    """Shifts an image by up to four pixels each way, and mirrors half of the images."""
    padded = np.pad(x, ((_MAX_SHIFT, _MAX_SHIFT), (_MAX_SHIFT, _MAX_SHIFT), (0, 0)))
    top, left = rng.integers(0, 2 * _MAX_SHIFT + 1, 2)
    x = padded[top : top + x.shape[0], left : left + x.shape[1]]
    return x[:, ::-1] if rng.random() < 0.5 else x


def cut(picture, size, rng=None):
    """Crops an image and resizes it to a square, as is usual for ImageNet.

    With `rng`, takes a random crop for training: 8 to 100 % of the area, aspect ratios from 3:4 to
    4:3, half of the crops mirrored (Szegedy et al., 2015, https://arxiv.org/abs/1409.4842, section
    6). Without it, takes the center crop for testing, 87.5 % of the shorter side.

    Args:
        picture: `PIL.Image.Image`.
        size: Integer. Height and width of the result.
        rng: `numpy.random.Generator`, or `None`.

    Returns:
        uint8 array of shape (size, size, 3).
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
