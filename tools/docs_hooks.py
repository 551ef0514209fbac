"""Hooks of MkDocs: public names that no page documents fail the build; links leave the site.

Pages are also read on GitHub, where `../examples` is a folder. On the site, such a link goes to
the repository.
"""

import ast
import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/keras-trim/keras-trim"
PACKAGES = ("", "inference", "plots", "storage")  # below keras_trim


def public_names():
    """List of the dotted names that users may use: `__all__` of each public package."""
    names = []
    for package in PACKAGES:
        path = ROOT / "keras_trim" / package / "__init__.py"
        prefix = ".".join(filter(None, ["keras_trim", package]))
        names += [f"{prefix}.{name}" for name in _exported(path)]
    return names


def _exported(path):
    """The strings of `__all__`, or of the dict that it is made of."""
    constants = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
    names = constants["__all__"]
    if isinstance(names, ast.Call):  # sorted(_MODULES)
        names = constants[names.args[0].id]
    return list(ast.literal_eval(names))


def documented_names():
    """Set of the names that a page below `docs/api` documents."""
    pages = (ROOT / "docs" / "api").glob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return set(re.findall(r"^::: (\S+)", text, re.MULTILINE))


def undocumented_names():
    """Public names that no page documents; a name that another package hands on counts once."""
    documented = documented_names()
    last_parts = {name.rpartition(".")[2] for name in documented}
    return [
        name
        for name in public_names()
        if name not in documented
        and not (name.startswith("keras_trim.storage.") and name.rpartition(".")[2] in last_parts)
    ]


def on_startup(command, dirty):
    remove_what_notebooks_wrote()


def on_post_build(config):
    remove_what_notebooks_wrote()


def remove_what_notebooks_wrote():
    """They run in their own folder, and models do not belong to the site."""
    for path in (ROOT / "docs" / "tutorials").iterdir():
        if path.is_file() and path.suffix not in (".ipynb", ".md"):
            path.unlink()


def on_config(config):
    missing = undocumented_names()
    if missing:
        raise SystemExit(f"No page below docs/api documents {', '.join(missing)}.")
    return config


def on_page_markdown(markdown, page, config, files):
    """Sends links that leave `docs/` to the repository."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def replace(match):
        target, _, anchor = match[1].partition("#")
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("docs/") and path != "docs/":
            return match[0]
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        if not (ROOT / path).exists():
            raise SystemExit(f"docs/{page.file.src_uri} links to {target}, which does not exist.")
        return f"]({REPOSITORY}/{kind}/main/{path}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"\]\((\.\./[^)\s]*)\)", replace, markdown)
