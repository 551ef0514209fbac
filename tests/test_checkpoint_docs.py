"""The code in docs/checkpoints.md runs."""

import pathlib
import re

import pytest

GUIDE = pathlib.Path(__file__).parents[1] / "docs" / "checkpoints.md"


@pytest.mark.filterwarnings("ignore:(Training ended|The pruning schedule ends) at step")
def test_the_code_in_the_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint-0000000020.ktrim",
        "checkpoint-0000000024.ktrim",
    ]
