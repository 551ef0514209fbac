"""Writes the tables of CONTRIBUTING.md from `architecture.toml`.

python tools/architecture.py
"""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parent.parent


def packages():
    """Name of a package -> dictionary of its modules, name -> what it owns, in order."""
    return {name: modules for name, modules in _read().items() if name != "lazy"}


def lazy():
    """Name of a module -> modules below it that it imports within a function."""
    return _read()["lazy"]


def _read():
    return tomllib.loads((ROOT / "architecture.toml").read_text())


def table(package, modules):
    """The table of a package in Markdown."""
    folder = ROOT / package.replace(".", "/")
    lines = ["| file | what it owns |", "|---|---|"]
    for name, owns in modules.items():
        file = f"{name}/" if (folder / name).is_dir() else f"{name}.py"
        lines.append(f"| `{file}` | {owns} |")
    return "\n".join(lines)


def with_tables(text):
    """The text with each table between its markers made anew."""
    for package, modules in packages().items():
        begin, end = f"<!-- architecture:{package} -->", f"<!-- /architecture:{package} -->"
        made = f"{begin}\n{table(package, modules)}\n{end}"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = pattern.sub(lambda _, made=made: made, text)
    return text


if __name__ == "__main__":
    page = ROOT / "CONTRIBUTING.md"
    page.write_text(with_tables(page.read_text()))
