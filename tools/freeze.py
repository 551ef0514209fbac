"""Writes constraints.txt: the version of every package in this environment.

    .venv/bin/python tools/freeze.py

`make setup CONSTRAINTS=constraints.txt` installs these. Without the labels of builds (`+cpu`), and
without this package itself.
"""

import importlib.metadata
import pathlib
import platform

PATH = pathlib.Path(__file__).resolve().parents[1] / "constraints.txt"
LEFT_OUT = {"keras-trim", "pip", "setuptools", "wheel"}


def main():
    versions = {
        distribution.name.lower().replace("_", "-"): distribution.version.partition("+")[0]
        for distribution in importlib.metadata.distributions()
    }
    lines = [f"{name}=={versions[name]}" for name in sorted(set(versions) - LEFT_OUT)]
    heading = f"# Made by tools/freeze.py on Python {platform.python_version()}; the use: Makefile."
    PATH.write_text("\n".join([heading, *lines]) + "\n", encoding="utf-8")
    print(f"{PATH.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
