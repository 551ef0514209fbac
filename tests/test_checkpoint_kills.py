"""A run that is killed at random moments and restarted equals one that was never killed."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children that it forks")
def test_kills(tmp_path):
    result = tmp_path / "result.json"
    command = ["-m", "benchmarks.kills", "--kills", "3", "--seed", "5", "--output", str(result)]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(result.read_text())
    assert result["kills"] >= 3
    assert result["equal"] == result["runs"] >= 1
    assert result["with_leftovers"] == 0
    assert result["pruned_zeros"] == 96 + 12
