"""Installs the wheel, then the sdist, into an empty environment each, and tries them out there.

    python tools/try_dist.py dist [--extras torch,storage,cli]

The sdist is built into a wheel by pip. Fails if one of them lacks a file, or holds tests.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import venv

SMOKE_TEST = pathlib.Path(__file__).with_name("smoke_test.py")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path, help="holds one wheel and one sdist")
    parser.add_argument("--extras", default="jax,storage,cli", help="to install; with a backend")
    args = parser.parse_args()
    (wheel,) = args.folder.glob("*.whl")
    (sdist,) = args.folder.glob("*.tar.gz")
    refuse_tests(sdist)
    backend = args.extras.split(",")[0].removesuffix("-cpu")
    for archive in (wheel, sdist):
        print(f"== {archive.name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try_out(archive.resolve(), args.extras, backend, pathlib.Path(folder))


def refuse_tests(sdist):
    with tarfile.open(sdist) as archive:
        tests = [name for name in archive.getnames() if "/tests/" in name]
    if tests:
        sys.exit(f"{sdist.name} holds {len(tests)} tests, which do not run without the repository")


def try_out(archive, extras, backend, folder):
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, f"keras-trim[{extras}] @ {archive.as_uri()}"], check=True)
    (folder / "work").mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for command in ([python, SMOKE_TEST], [scripts / "keras-trim", "report", "model.keras"]):
        subprocess.run(command, cwd=folder / "work", env=environment, check=True)


if __name__ == "__main__":
    main()
