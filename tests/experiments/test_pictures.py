"""Pictures: folders and arrays, their parts, and what augmentation does."""

import numpy as np
import pytest
from PIL import Image

from experiments import images, pictures


@pytest.fixture
def folder(tmp_path):
    """ImageNet's layout: two classes; pictures of the first are red, of the second blue."""
    for part, count in (("train", 10), ("val", 2)):
        for name, color in (("n01", (255, 0, 0)), ("n02", (0, 0, 255))):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                path = tmp_path / part / name / f"{i}.jpg"
                Image.new("RGB", (60, 40), color).save(path, quality=95)
    return tmp_path


def test_folder_in_imagenets_layout(folder):
    parts = pictures.load(str(folder))
    assert {name: len(part) for name, part in parts.items()} == {"train": 18, "val": 2, "test": 4}
    assert parts["test"].labels.tolist() == [0, 0, 1, 1]
    x = parts["test"].read(range(4), 32)
    assert x.shape == (4, 32, 32, 3)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(axis=(1, 2))[[0, 3]], [[1, -1, -1], [-1, -1, 1]], atol=0.05)


def test_no_picture_is_in_two_parts(folder):
    parts = pictures.load(str(folder))
    chosen = np.concatenate([parts["train"]._chosen, parts["val"]._chosen])
    assert sorted(chosen) == list(range(20))


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "n01").mkdir()
    with pytest.raises(ValueError, match="No images"):
        pictures.Folder(tmp_path)


def test_the_middle_is_tested():
    """A square of 87.5 % of the shorter side: the frame around it is not seen."""
    x = np.zeros((80, 160, 3), "uint8")
    x[5:75, 45:115] = 200
    assert (pictures.cut(Image.fromarray(x), 70) == 200).all()


def test_small_pictures_are_moved_and_mirrored():
    x = np.arange(1, 5, dtype="uint8").reshape(2, 2, 1).repeat(3, axis=2)
    found = {
        pictures.moved(x, np.random.default_rng(seed))[..., 0].tobytes() for seed in range(2000)
    }
    assert x[..., 0].tobytes() in found
    assert x[:, ::-1, 0].tobytes() in found
    moved_down = np.array([[0, 0], [1, 2]], "uint8")
    assert moved_down.tobytes() in found


def test_batches_are_functions_of_seed_epoch_and_place(folder):
    task = images.Images("mobilenet_v2", str(folder), size=32, width=0.35, quick=True)
    x, labels = task.batch(0, 0, 1)
    assert x.shape == (8, 32, 32, 3)
    again, same = task.batch(0, 0, 1)
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(labels, same)
    assert not np.array_equal(x, task.batch(0, 1, 1)[0])


def test_networks_for_small_pictures_keep_their_pixels():
    import keras

    parts = {
        "train": pictures.Part(pictures.Arrays(np.zeros((4, 32, 32, 3), "uint8"), np.arange(4)))
    }
    model = images.Images("mobilenet_v1", "x.npz", width=0.25, parts=parts).build(keras)
    assert model.get_layer("conv1").output.shape[1:3] == (32, 32)
    assert model.output.shape == (None, 4)
