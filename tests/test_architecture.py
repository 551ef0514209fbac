"""Modules import only those above them in `architecture.toml`, which CONTRIBUTING.md shows."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import architecture  # noqa: E402

PACKAGES = architecture.packages()


def modules():
    """Path of each module of the library -> its name."""
    paths = (ROOT / "keras_trim").rglob("*.py")
    return {path: path.relative_to(ROOT).with_suffix("").parts for path in paths}


def imported(path):
    """The names of modules, or of what is in them, that a module imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_only_those_above_them(package):
    depth, order = len(package.split(".")), list(PACKAGES[package])
    wrong, lazy = [], architecture.lazy()
    for path, parts in modules().items():
        if ".".join(parts[:depth]) != package or parts[depth] == "__init__":
            continue
        for name in imported(path):
            inner = name.removeprefix(f"{package}.").split(".")[0]
            if not name.startswith(f"{package}.") or inner not in order or inner == parts[depth]:
                continue
            if inner in lazy.get(".".join(parts[: depth + 1]), []):
                continue
            if order.index(inner) > order.index(parts[depth]):
                wrong.append(f"{'.'.join(parts)} imports {name}")
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_is_in_the_architecture(package):
    folder = ROOT / package.replace(".", "/")
    found = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    found |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert found == set(PACKAGES[package]), "add it to architecture.toml, below what it imports"


def test_contributing_shows_the_architecture():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(f"<!-- architecture:{package} -->" in text for package in PACKAGES)
    assert architecture.with_tables(text) == text, "run `python tools/architecture.py`"


def test_test_files_have_names_of_their_own():
    # pytest imports them by name, and refuses the second one after all others have run.
    names = [path.stem for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
