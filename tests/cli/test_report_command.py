import html.parser
import shutil
import subprocess

import keras
import matplotlib.image
import numpy as np
import pytest
from commands import error_of, fill, run, run_json

import keras_trim

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path)


def test_counts(folder):
    report = run_json("report", folder / "pruned.keras")
    conv, norm, out = report["layers"]
    assert (conv["name"], conv["type"], conv["parameters"]) == ("conv", "Conv2D", 3 * 3 * 3 * 8 + 8)
    kernel, bias = conv["weights"]
    assert kernel["path"] == "conv/kernel"
    assert kernel["shape"] == [3, 3, 3, 8]
    assert (kernel["zeros"], kernel["sparsity"], kernel["prunable"]) == (162, 0.75, True)
    assert (bias["zeros"], bias["prunable"]) == (8, False)
    assert bias["reason"].startswith("rank 1")
    assert norm["parameters"] == 4 * 8
    assert report["prunable"] == {"parameters": 504, "zeros": 378, "sparsity": 0.75}
    assert report["parameters"] == 504 + 8 + 32 + 4
    assert report["zeros"] == 378 + 8 + 16 + 4
    assert report["bytes"]["memory"] == 4 * report["parameters"]
    assert report["bytes"]["file"] == (folder / "pruned.keras").stat().st_size
    assert out["sparsity"] == (216 + 4) / 292


@pytest.mark.parametrize("name", ["pruned.ktrim", "dense.h5"])
def test_every_format_of_input(folder, name):
    report = run_json("report", folder / name)
    assert report["prunable"]["zeros"] == (0 if name == "dense.h5" else 378)


def test_sizes(folder, monkeypatch):
    def export(model, path, format):
        path.write_bytes(b"x" * 1000)

    monkeypatch.setattr(keras_trim, "export", export)  # the real one takes a minute
    sizes = run_json("report", folder / "pruned.keras", "--sizes")["sizes"]
    assert sizes["litert"] == 1000
    assert sizes["raw"] == 4 * 548
    assert sizes.keys() == {"raw", "h5", "gzip", "ktrim", "int8", "litert"}
    assert "weights in memory" in run("report", folder / "pruned.keras", "--sizes").stdout


def test_table(folder):
    text = run("report", folder / "pruned.keras").stdout
    assert "not pruned: 1 BatchNormalization layer (32 weights)" in text
    assert "3x3x3x8" in text
    assert "prunable weights: 504, of which 75.00% are zero" in text
    assert "\x1b" not in text
    assert "rank 1" in run("report", folder / "pruned.keras", "--weights").stdout


class _Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.tags, self.references, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href"):
                self.references.append(value)

    def handle_data(self, data):
        self.text.append(data)


def _page(path):
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_page_is_self_contained_and_its_ids_are_unique(folder):
    path = folder / "report.html"
    assert run_json("report", folder / "pruned.keras", "--html", path)["html"] == str(path)
    page = _page(path)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.references  # of images and markers
    assert all(reference.startswith(("#", "data:image/")) for reference in page.references)
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 1 + 2 * 2
    assert page.tags.count("h1") == 1
    text = " ".join(page.text)
    assert "75.00%" in text
    assert "default-src 'none'" in path.read_text()
    assert "url(http" not in path.read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_chromium_draws_the_page_and_complains_of_nothing(folder):
    path, picture = folder / "report.html", folder / "page.png"
    run("report", folder / "pruned.keras", "--html", path)
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}", "--window-size=1000,2000",
            f"--screenshot={picture}", path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr  # the browser would log what the page's policy blocks
    pixels = matplotlib.image.imread(picture)[..., :3].reshape(-1, 3)
    drawn = np.any(np.abs(pixels - pixels[0]) > 0.1, axis=1)  # not the background
    assert drawn.mean() > 0.05
    is_colored = np.ptp(pixels, axis=1) > 0.3  # text and lines are gray, bars are not
    assert is_colored.mean() > 0.01


def test_page_draws_the_largest_weights_only(folder):
    path = folder / "report.html"
    run("report", folder / "pruned.keras", "--html", path, "--max-plots", 1)
    page = _page(path)
    assert page.tags.count("svg") == 1 + 2
    assert "The 1 largest weights; 1 smaller ones are left out." in " ".join(page.text)


def test_names_in_a_page_are_no_markup(folder):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)], name="a<script>b")
    path = folder / "[red]a&b.keras"
    model.save(path)
    run("report", path, "--html", folder / "report.html")
    page = _page(folder / "report.html")
    assert "script" not in page.tags
    assert "“a<script>b”" in " ".join(page.text)
    assert "[red]a&b.keras" in page.text
    assert "[red]a&b.keras" in run("diff", path, path).stdout


def test_model_without_anything_to_prune(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5)])
    model.save(tmp_path / "empty.keras")
    report = run_json("report", tmp_path / "empty.keras", "--html", tmp_path / "report.html")
    assert report["parameters"] == 0  # a random generator's state is not a weight
    assert report["sparsity"] == 0.0
    assert (tmp_path / "report.html").exists()


def test_page_is_not_overwritten_unasked(folder):
    path = folder / "report.html"
    path.write_text("mine")
    assert "exists already: give --force" in error_of(
        "report", folder / "pruned.keras", "--html", path
    )
    assert path.read_text() == "mine"
    run("report", folder / "pruned.keras", "--html", path, "--force")
    assert path.read_text().startswith("<!DOCTYPE html>")
