"""README.md and docs/: the quickstart runs, links work, and every public name is mentioned."""

import importlib
import inspect
import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"]
)
REPOSITORY = "https://github.com/keras-trim/keras-trim/"


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(page):
    return re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))


def anchors(page):
    """Lists the anchors that GitHub and MkDocs make from a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.M)
    texts = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in texts}


@pytest.mark.slow
def test_the_quickstart_runs_as_it_stands(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    (backend,) = re.findall(r'^os.environ\["KERAS_BACKEND"\] = "(\w+)"', code, re.M)
    if keras.backend.backend() != backend:
        pytest.skip(f"runs on {backend}")
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-"],
        input=code,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sparsity: 0.8000" in done.stdout  # in the progress bar of the last epoch
    assert (tmp_path / "model.keras").stat().st_size > (tmp_path / "model.ktrim").stat().st_size


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        if target.startswith(REPOSITORY):
            path = re.fullmatch(r"(?:blob|tree)/main/(.+)", target[len(REPOSITORY) :])
            assert path is None or (ROOT / path[1]).exists(), link
            continue
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {link}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name} links to {link}"


def test_links_of_the_readme_are_absolute():
    """The package index shows the page without the repository around it."""
    readme = ROOT / "README.md"
    assert all(link.startswith("https://") for link in links(readme))
    raw = "https://raw.githubusercontent.com/keras-trim/keras-trim/main/"
    pictures = [link[len(raw) :] for link in links(readme) if link.startswith(raw)]
    assert pictures
    assert all((ROOT / picture).exists() for picture in pictures)


@pytest.mark.parametrize("package", ["one_shot", "storage", "checkpoints", "exporters"])
def test_contributing_lists_each_module(package):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition(f"In `{package}/`:\n\n")[2].partition("\n\n")[0]
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines())
    listed = re.findall(r"`(\w+\.py)`", first_cells)
    modules = {path.name for path in (ROOT / "keras_trim" / package).glob("*.py")}
    assert sorted(listed) == sorted(modules - {"__init__.py"})


def test_pages_are_in_the_navigation_once():
    pages = re.findall(r"(\S+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.M)
    found = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".ipynb")]
    assert sorted(pages) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in found)


def test_every_public_name_is_in_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    docs_hooks = importlib.import_module("docs_hooks")
    assert docs_hooks.undocumented_names() == []
    for name in docs_hooks.documented_names():
        module, _, last = name.rpartition(".")
        found = getattr(importlib.import_module(module), last)
        assert (found.__doc__ or "").strip(), f"{name} has no docstring"


def _documented(names):
    """Yields the functions, classes and methods of the reference, with their paths.

    And the functions beside them, which the website's builder reads as well.
    """
    for path in names:
        module, _, name = path.rpartition(".")
        target = getattr(importlib.import_module(module), name)
        yield path, target
        for method, value in vars(target).items() if inspect.isclass(target) else ():
            if not method.startswith("_"):
                yield f"{path}.{method}", getattr(value, "__func__", value)
        beside = inspect.getmodule(target)
        for other, value in vars(beside).items() if beside else ():
            if inspect.isfunction(value) and value.__module__ == beside.__name__:
                yield f"{beside.__name__}.{other}", value


def test_documented_arguments_are_those_of_the_signature(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    wrong, names = [], importlib.import_module("docs_hooks").documented_names()
    for path, target in _documented(names):
        arguments = re.search(r"Args:\n(.*?)(\n\n|\Z)", inspect.getdoc(target) or "", re.S)
        if arguments is None or not callable(target):
            continue
        known = inspect.signature(target).parameters
        for name in re.findall(r"^    (\S[^:]*?)(?: \(.*\))?:", arguments[1], re.M):
            if name.lstrip("*") not in known:
                wrong.append(f"{path}: {name}")
    assert not wrong


def test_messages_in_the_troubleshooting_page_are_those_of_the_package():
    sources = " ".join(
        path.read_text(encoding="utf-8")
        for folder in ("keras_trim", "keras_trim_cli")
        for path in (ROOT / folder).rglob("*.py")
    )
    # Join strings that are written in several lines.
    sources = re.sub(r'"\s*\n?\s*f?"', "", sources)
    # The plurals of words that agree with a number (`arguments.counted`).
    sources = re.sub(r"\{([^|{}]*)\|[^|{}]*\}", r"\1", sources)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    symptoms = ("The accuracy", "The file is", "The model is no", "The first", "The engine is")
    fragments = [
        fragment.strip(" :,")
        for message in re.findall(r"^### (.+)|\*\*([^*]+)\*\*", page, re.M)
        if not "".join(message).startswith(symptoms)
        for fragment in "".join(message).split("...")
    ]
    assert len(fragments) > 20
    for fragment in fragments:
        if len(fragment) > 8:
            assert fragment in sources, fragment
