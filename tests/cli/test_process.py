"""The command as a real process."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tomllib

import pytest
from commands import ROOT, fill, finish, start

from keras_trim_cli import streams

pytestmark = pytest.mark.usefixtures("one_backend")


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path)


def _python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_entry_point_helps_without_importing_keras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["keras-trim"].split(":")
    for arguments in (["--help"], ["prune", "--help"], ["prune"], ["prune", "--nonsense"]):
        result = _python(
            f"import sys; sys.argv[1:] = {arguments}\n"
            f"from {module} import {function} as main\n"
            "try:\n    main()\n"
            "finally:\n    assert not {'keras', 'keras_trim'} & set(sys.modules)"
        )
        assert result.returncode == (0 if "--help" in arguments else 2), result.stderr
        assert "AssertionError" not in result.stderr
        if "prune" in arguments and "--help" in arguments:
            assert "keras-trim prune model.keras pruned.keras --sparsity 0.8" in result.stdout


def test_without_the_extra():
    result = _python(
        "import sys; sys.modules['typer'] = None; import keras_trim_cli; keras_trim_cli.main()"
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert 'pip install "keras-trim[cli]"' in line


@pytest.mark.slow
def test_json_is_all_there_is(folder):
    code, out, err = finish(start("prune", "dense.keras", "x.keras", "-s.5", "--json", cwd=folder))
    assert code == 0, err
    assert out.startswith("{\n")
    assert out.endswith("}\n")
    assert err == ""  # nothing that the backend prints


def test_json_has_no_nan(capsys):
    streams.print_json({"a": [float("nan"), 1.5], "b": {"c": float("-inf"), "d": None}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": {"c": None, "d": None}}


@pytest.mark.slow
def test_python_m_keras_trim():
    code, out, _ = finish(start("--version", module="keras_trim", cwd=ROOT))
    assert code == 0
    assert out.startswith("keras-trim ")


@pytest.mark.slow
@pytest.mark.parametrize("output", ["pruned.keras", "pruned.ktrim"])
def test_full_disk(folder, output):
    limited = ("sh", "-c", 'ulimit -f 1; exec "$@"', "sh")  # no file above 1 kB
    before = (folder / output).read_bytes()
    arguments = ("prune", "dense.keras", output, "-s.5", "--force")
    code, out, err = finish(start(*arguments, cwd=folder, before=limited))
    assert (code, out) == (1, "")
    assert err == f"keras-trim: cannot write {output}: File too large\n"
    assert (folder / output).read_bytes() == before
    assert not list(folder.glob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_standard_output(folder):
    with open("/dev/full", "w") as full:
        code, _, err = finish(start("report", "dense.keras", cwd=folder, stdout=full))
    assert code == 1
    assert err == "keras-trim: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_closed_streams(folder, closed):
    before = ("sh", "-c", f'exec "$@" {closed}', "sh")
    result = finish(start("prune", "dense.keras", "x.keras", "-s.5", cwd=folder, before=before))
    assert (result[0], result[2]) == (0, "")
    assert (result[1] == "") == (">&-" in closed.split())
    assert (folder / "x.keras").exists()


# Root may write anywhere, unless it drops that capability.
_AS_USER = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()


@pytest.mark.skipif(
    bool(_AS_USER) and not shutil.which("setpriv"), reason="root may write anywhere"
)
def test_read_only_folder(folder):
    before = (folder / "pruned.keras").read_bytes()
    folder.chmod(0o555)
    code, out, err = finish(
        start("prune", "dense.keras", "pruned.keras", "-s.5", "-f", cwd=folder, before=_AS_USER)
    )
    folder.chmod(0o755)
    assert (code, out) == (1, "")
    assert err == f"keras-trim: cannot write pruned.keras: the folder {folder} is read-only\n"
    assert (folder / "pruned.keras").read_bytes() == before


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_on_a_terminal_only(no_color):
    def help_on(stdout):
        environment = {"TERM": "xterm-256color", **({"NO_COLOR": "1"} if no_color else {})}
        return start("report", "--help", cwd=ROOT, env=environment, stdout=stdout)

    code, out, _ = finish(help_on(subprocess.PIPE))
    assert code == 0
    assert "\x1b[" not in out
    leader, follower = pty.openpty()
    process = help_on(follower)
    os.close(follower)
    out = b""
    try:
        while part := os.read(leader, 65536):
            out += part
    except OSError:  # the other end is closed
        pass
    assert finish(process)[0] == 0
    os.close(leader)
    # 3x and 9x are colors. Bold and the like may stay.
    assert any(code in out for code in (b"\x1b[36m", b"\x1b[1;36m", b"\x1b[33m")) is not no_color
