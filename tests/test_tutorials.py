"""The code of the notebooks in docs/tutorials runs, each on the backend that it selects."""

import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "tutorials"
BACKEND = keras.backend.backend()


def code_of(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return re.sub(r"^%.*$", "", "\n".join(sources), flags=re.MULTILINE)  # magics of IPython


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_code_of_a_tutorial_runs(notebook, tmp_path):
    code = code_of(notebook)
    (backend,) = re.findall(r'^os.environ\["KERAS_BACKEND"\] = "(\w+)"', code, re.MULTILINE)
    if backend != BACKEND:
        pytest.skip(f"runs on {backend}")
    if notebook.stem == "litert":
        pytest.skip("half a minute in TensorFlow's converter; `make docs` runs it")
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-"],
        input=code,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(FOLDER.parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
