"""What somebody types in the first hour, and what each command must print or exit with.

Models lie in the current folder, as `cli.commands` makes them: `dense`, `pruned` to 75 %.
"""

import os
import signal
import sys
import time

import keras
import numpy as np
import pytest
from cli.commands import fill, finish, run, start

# A command, its exit code, and what it prints: on standard error if it fails.
COMMANDS = [
    ("", 2, "Usage"),
    ("--help", 0, "keras-trim report model.keras --html report.html"),
    ("--version", 0, "keras-trim 0."),
    ("report --help", 0, "keras-trim report model.keras --json"),
    ("prune --help", 0, "keras-trim prune model.keras pruned.keras --sparsity 0.8"),
    ("bench --help", 0, "keras-trim bench pruned.keras --against none"),
    ("report dense.keras", 0, "prunable weights: 504, of which 0.00% are zero"),
    ("report pruned.keras --weights", 0, "rank 1: biases"),
    ("report pruned.ktrim", 0, "75.00% are zero"),
    ("report dense.h5 --json", 0, '"sparsity": 0.0'),
    ("report missing.keras", 2, "'missing.keras' does not exist. Try: keras-trim report --help"),
    ("report x.npy", 1, "x.npy is of no known type: models are read from .keras, .h5 and .ktrim"),
    ("repot dense.keras", 2, "No such command 'repot'. Did you mean 'report'"),
    ("prune dense.keras", 2, "Missing argument 'OUTPUT'"),
    ("prune dense.keras a.keras", 2, "give --sparsity, or --pattern"),
    (
        "prune dense.keras a.keras -s 80",
        2,
        "--sparsity must be at least 0 and below 1; 80 % is 0.8",
    ),
    ("prune dense.keras a.keras -s 0.5", 0, "a.keras: 50.00% of the 504 prunable weights are zero"),
    ("prune dense.keras a.keras -s 0.5", 1, "a.keras exists already: give --force"),
    ("prune dense.keras b.keras --pattern 2:4", 0, "b.keras: 42.86% of"),
    ("prune dense.keras c.pb -s 0.5", 1, "models are written to .keras, .h5 and .ktrim"),
    ("compress pruned.keras d.ktrim", 0, "no value changed"),
    ("compress pruned.keras d.keras", 2, "OUTPUT must end in .ktrim, not 'd.keras'"),
    ("decompress d.ktrim e.keras", 0, "e.keras: "),
    ("decompress dense.keras", 2, "MODEL must be a .ktrim file, not 'dense.keras'"),
    ("diff pruned.keras e.keras --exit-code", 0, "all weights are equal"),
    ("diff dense.keras pruned.keras --exit-code", 1, "weights differ"),
    ("check pruned.keras -t nvidia-2:4", 1, "0 of 2 weights are run sparsely by nvidia-2:4"),
    ("check pruned.keras -t tensorrt", 2, "'tensorrt' is not one of 'xnnpack', 'litert'"),
    ("export pruned.keras a.pt", 2, "does not end in .tflite"),
    ("export pruned.keras w.safetensors", 0, "w.safetensors: "),
    ("sensitivity dense.keras -c x.npy --sparsities 0.5", 0, "output error"),
    ("sensitivity dense.keras", 2, "Missing option '--calibration'"),
    ("bench pruned.keras --against tensorrt", 2, "choose from litert, onnxruntime"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("first_hour"))
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((8, 8, 8, 3)))
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def test_commands(folder):
    """One after the other, as some need what others have written."""
    for command, code, printed in COMMANDS:
        result = run(*command.split(), code=code)
        failed = code and not (command.startswith(("diff", "check")) and code == 1)
        said = result.stderr if failed and command else result.output
        assert printed in " ".join(said.split()), (command, result.output)
        assert "Traceback" not in result.output, command


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_consoles_without_lines(folder, encoding, one_backend):
    """Tables and names of layers in any script come out of a pipe of any encoding."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="层")], name="模型")
    model.save(folder / "names.keras")
    environment = {"PYTHONIOENCODING": encoding, "COLUMNS": "80", "NO_COLOR": "1"}
    process = start("report", "names.keras", cwd=folder, env=environment, encoding=encoding)
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert "?" in out
    assert "---" in out
    assert "\x1b" not in out


def test_a_pipe_that_is_closed(folder, one_backend):
    reader, writer = os.pipe()
    os.close(reader)
    process = start("report", "dense.keras", cwd=folder, stdout=writer)
    os.close(writer)
    code, _, err = finish(process)
    assert (code, err) == (1, "")


# A job in the background of a shell ignores Ctrl-C, and its children do, too.
_HEARS_CTRL_C = (
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execvp(sys.argv[1], sys.argv[1:])",
)


@pytest.mark.slow
def test_interrupted(folder):
    """Ctrl-C during the work: one line, 130, nothing left behind."""
    (folder / "slow.py").write_text("open('started', 'w').close()\nimport time\ntime.sleep(300)\n")
    arguments = ("prune", "dense.keras", "pruned.keras", "-s.5", "-f", "--import", "slow.py")
    process = start(*arguments, cwd=folder, before=_HEARS_CTRL_C)
    before = (folder / "pruned.keras").read_bytes()
    while not (folder / "started").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "", "keras-trim: interrupted\n")
    assert (folder / "pruned.keras").read_bytes() == before
    assert not list(folder.glob(".*"))
