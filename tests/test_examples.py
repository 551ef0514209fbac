"""Runs every example the way users do, on small data made here.

Sizes are multiples of the batch size, because JAX compiles a step for each batch size.
"""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
BACKEND = keras.backend.backend()


def _run(name, *arguments, backend=BACKEND):
    """Returns what an example prints."""
    result = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)],
        # One thread: PyTorch's threads wait for each other on busy cores.
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # No warnings, such as of a schedule that training ended before.
    assert "UserWarning" not in result.stderr
    return result.stdout


def _pruned_weights(output):
    """Dict: path of a pruned weight -> its target and its sparsity, from a printed report."""
    rows = re.findall(r"^ (\S+) .* (\d+\.\d+)% +[\d,]+ +(\d+\.\d+)%$", output, re.MULTILINE)
    return {path: (float(target), float(sparsity)) for path, target, sparsity in rows}


def _check(output, weights, min_accuracy):
    pruned = _pruned_weights(output)
    # Without the model's name, which counts up.
    assert [path.split("/", 1)[1] for path in pruned] == weights
    for target, sparsity in pruned.values():
        assert sparsity == target == pytest.approx(80, abs=2)
    assert "of which 80.00% are zero" in output
    accuracies = re.findall(r"(?:dense|pruned) (\d+\.\d+)%", output)
    assert accuracies
    assert all(float(accuracy) > min_accuracy for accuracy in accuracies)


@pytest.fixture
def mnist(tmp_path):
    """Path of a file like MNIST's: ten patterns under noise."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 2, (10, 28, 28)) * 200
    arrays = {}
    for part, size in (("train", 2000), ("test", 256)):
        classes = random.integers(0, 10, size, "uint8")
        noise = random.integers(0, 56, (size, 28, 28))
        arrays[f"x_{part}"] = (patterns[classes] + noise).astype("uint8")
        arrays[f"y_{part}"] = classes
    np.savez(tmp_path / "mnist.npz", **arrays)
    return tmp_path / "mnist.npz"


@pytest.fixture
def reviews(tmp_path):
    """Path of a TSV file of reviews, the positive ones first."""
    random = np.random.default_rng(0)
    lines = ["sentiment\ttext"]
    for sentiment, opinions in ((1.5, ["good", "great"]), (-2.25, ["bad", "awful"])):
        for _ in range(600):
            words = random.choice(["The", "film", "is", "and", 'its "plot"', *opinions], 6)
            lines.append(f"{sentiment}\t{' '.join([*words, random.choice(opinions)])}")
    path = tmp_path / "reviews.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.slow
def test_mnist_cnn(mnist):
    output = _run("mnist_cnn", "--data", mnist, "--epochs", 1, "--limit", 1024)
    _check(output, ["conv2d/kernel", "dense/kernel"], min_accuracy=50)


@pytest.mark.slow
def test_subclassed_model(mnist):
    output = _run("subclassed_model", "--data", mnist, "--epochs", 2, "--limit", 1024)
    _check(output, ["maxout/pieces", "dense/kernel"], min_accuracy=50)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"custom_loop_{BACKEND}"])
def test_custom_loop(mnist, name):
    # The example must choose the backend itself: this one cannot train.
    output = _run(name, "--data", mnist, "--epochs", 2, "--limit", 1024, backend="numpy")
    _check(output, ["dense/kernel", "dense_1/kernel", "dense_2/kernel"], min_accuracy=50)


@pytest.mark.slow
def test_imdb_lstm(reviews):
    output = _run("imdb_lstm", "--data", reviews, "--epochs", 3, "--limit", 640)
    weights = ["embedding/embeddings", "lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel"]
    _check(output, [*weights, "dense/kernel"], min_accuracy=60)
