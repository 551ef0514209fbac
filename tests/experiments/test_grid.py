"""What is run, chosen and resumed, on a task that takes no time."""

import json

import keras
import numpy as np
import pytest

from experiments import training
from experiments.grid import Grid
from experiments.records import Records
from experiments.task import Settings, Task

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="does not depend on the backend: runs on PyTorch only",
)


class Tiny(Task):
    """Points in one of two halves of a space."""

    name = "mnist_cnn"
    first_layer = "first"
    batch_size = 16
    targets = (0.5, "2:4")
    settings = Settings(epochs=2, rates=(0.01, 1e-6), choice_target=0.5, dense_epochs=3)

    def build(self, keras):
        layers = [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu", name="first"),
            keras.layers.Dense(2, name="logits"),
        ]
        return keras.Sequential(layers)

    def loss(self, keras):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def num_batches(self):
        return 8

    def _points(self, *seed):
        x = np.random.default_rng(seed).standard_normal((self.batch_size, 4), "float32")
        return x, (x.sum(axis=1) > 0).astype("int64")

    def batch(self, seed, epoch, index):
        return self._points(seed, epoch, index)

    def score(self, model, part):
        x, y = self._points(0, {"val": 1000, "test": 1001}[part])
        return 100 * float(np.mean(model.predict(x, verbose=0).argmax(-1) == y))

    def examples(self):
        return self._points(5)[0]


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _run(folder, seeds=1):
    path = folder / "tiny.jsonl"
    Grid(Tiny(), Records(path), folder / "work").run(range(seeds))
    return _lines(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    return folder, _run(folder)


def test_settings_are_chosen_by_the_best_validation_score(done):
    trials = [line for line in done[1] if line["kind"] == "trial"]
    scores = {(trial["rate"], trial["dense_layer"]): trial["val"] for trial in trials}
    rate = 0.01 if scores[0.01, None] >= scores[1e-6, None] else 1e-6
    assert list(scores) == [(0.01, None), (1e-6, None), (rate, "first")]
    layer = "first" if scores[rate, "first"] > scores[rate, None] else None
    (choice,) = [line for line in done[1] if line["kind"] == "choice"]
    assert (choice["rate"], choice["dense_layer"]) == (rate, layer)


def test_every_row_has_the_chosen_settings_and_its_zeros(done):
    rows = [line for line in done[1] if line["kind"] == "row"]
    (choice,) = [line for line in done[1] if line["kind"] == "choice"]
    assert [row["target"] for row in rows] == [None, 0.5, "2:4"]
    pruned = 32 + 16 if choice["dense_layer"] is None else 16
    for row in rows:
        assert (row["rate"], row["dense_layer"]) == (choice["rate"], choice["dense_layer"])
        assert row["pruned_weights"] == pruned
        assert row["steps"] == 16
    assert rows[0]["zeros"] == 0
    assert rows[1]["zeros"] == pruned / 2


def test_a_row_that_was_trained_to_choose_the_settings_is_not_trained_again(tmp_path, monkeypatch):
    trained = []
    train_on = training.train_on

    def train(task, weights, target, seed, rate, dense_layer, *arguments):
        trained.append((target, rate, dense_layer))
        return train_on(task, weights, target, seed, rate, dense_layer, *arguments)

    monkeypatch.setattr(training, "train_on", train)
    lines = _run(tmp_path)
    (choice,) = [line for line in lines if line["kind"] == "choice"]
    chosen = (choice["rate"], choice["dense_layer"])
    assert trained.count((0.5, *chosen)) == 1
    (trial,) = [
        line
        for line in lines
        if line["kind"] == "trial" and (line["rate"], line["dense_layer"]) == chosen
    ]
    (row,) = [line for line in lines if line["kind"] == "row" and line["target"] == 0.5]
    assert row["val"] == trial["val"]


def test_a_second_run_does_only_what_is_missing(done):
    folder, lines = done
    assert _run(folder) == lines
    path = folder / "tiny.jsonl"
    kept = [line for line in lines if line.get("target") != 0.5]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    again = _run(folder)
    assert again[:-1] == kept
    (lost,) = [line for line in lines if line.get("target") == 0.5]
    for key in ("target", "seed", "test", "val", "zeros", "rate"):
        assert again[-1][key] == lost[key]
