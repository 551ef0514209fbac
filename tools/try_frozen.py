"""Freezes an application that runs an engine with PyInstaller, and checks what it answers.

    python tools/try_frozen.py

Installs this checkout and PyInstaller into an empty environment. Takes some minutes, one of which
compiles the kernels.
"""

import os
import pathlib
import subprocess
import tempfile
import venv

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
APPLICATION = """
import sys

import numpy as np

from keras_trim.inference import Engine, cache_info

if __name__ == "__main__":
    engine, expected = Engine.load(sys.argv[1], num_threads=1), np.load(sys.argv[2])
    outputs = engine({name: expected[name] for name in ("image", "tokens")})
    for name, found in outputs.items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5)
    print(cache_info())
"""


def main():
    with tempfile.TemporaryDirectory() as folder:
        try_out(pathlib.Path(folder))


def try_out(folder):
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = [scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "pyinstaller>=6", f"{ROOT}[inference]"], check=True)
    (folder / "app.py").write_text(APPLICATION)
    freeze = [scripts / "pyinstaller", "--noconfirm", "--log-level", "WARN", "app.py"]
    subprocess.run(freeze, cwd=folder, check=True)
    environment = os.environ | {"KERAS_TRIM_CACHE_DIR": str(folder / "cache")}
    files = [DATA / "version_0_1_0.engine", DATA / "version_0_1_0.npz"]
    for _ in range(2):  # compiles the kernels, then finds them
        subprocess.run(
            [folder / "dist" / "app" / "app", *files], cwd=folder, env=environment, check=True
        )
    print("The frozen application answers what it should.")


if __name__ == "__main__":
    main()
