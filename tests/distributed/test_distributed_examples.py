"""Runs the examples for several devices and processes the way users do."""

import re

import keras
import pytest
from launch import ROOT, start

BACKEND = keras.backend.backend()
EXAMPLES = [
    ("tensorflow", "tensorflow_mirrored", []),
    ("tensorflow", "tensorflow_multi_worker", []),
    ("jax", "jax_sharded", []),
    ("jax", "jax_sharded", ["--split-weights"]),
    ("jax", "jax_multi_process", []),
    ("torch", "torch_ddp", []),
]


def test_every_example_is_run():
    files = {path.stem for path in (ROOT / "examples" / "distributed").glob("*.py")}
    assert files == {name for _, name, _ in EXAMPLES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, arguments) for backend, name, arguments in EXAMPLES if backend == BACKEND],
)
def test_example(name, arguments):
    # The example must choose the backend itself: this one cannot train.
    script = ROOT / "examples" / "distributed" / f"{name}.py"
    (output,) = start(script, *arguments, backend="numpy")
    rows = re.findall(r"^ \S+/kernel .* (\d+\.\d+)% +[\d,]+ +(\d+\.\d+)%$", output, re.MULTILINE)
    assert len(rows) == 2
    for target, sparsity in rows:
        assert sparsity == target
        assert float(sparsity) == pytest.approx(80, abs=2)
    if arguments:
        assert "P(None, 'model') mask P(None, 'model')" in output.replace("PartitionSpec", "P")
