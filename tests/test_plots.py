import sys

import numpy as np
import pytest

from keras_trim import plots


def test_make_figure_has_the_panels_asked_for():
    figure, axes = plots.make_figure(3)
    assert list(figure.axes) == list(axes)
    assert len(axes) == 3


def test_make_figure_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "keras-trim\[plots\]"'):
        plots.make_figure(1)


def test_plot_schedule(tmp_path):
    figure, (ax,) = plots.make_figure(1)
    plots.plot_schedule(ax, [1, 2, 3], asked=[0.1, 0.4, 0.5], reached=[0.0, 0.4, 0.4])

    asked, reached = ax.lines
    assert asked.get_label() == "asked for"
    assert asked.get_xydata().tolist() == [[1, 0.1], [2, 0.4], [3, 0.5]]
    assert reached.get_label() == "reached"
    assert reached.get_xydata().tolist() == [[1, 0.0], [2, 0.4], [3, 0.4]]
    assert ax.get_ylim() == (0, 1)
    assert ax.yaxis.get_major_formatter()(0.25, 0) == "25%"
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    figure.savefig(tmp_path / "schedule.png")


def test_weight_histogram_leaves_zeros_to_a_note(tmp_path):
    before = np.random.default_rng(0).normal(size=(40, 50))
    after = np.where(np.abs(before) < np.quantile(np.abs(before), 0.75), 0, before)
    figure, (ax,) = plots.make_figure(1)
    plots.plot_weight_histogram(ax, before, after, num_bins=31)

    bars_before, bars_after = (patch.get_data() for patch in ax.patches)
    assert len(bars_after.values) == 31
    # Every nonzero weight is in a bar, including those beyond the range.
    assert bars_before.values.sum() == pytest.approx(1.0)
    assert bars_after.values.sum() == pytest.approx(0.25)
    assert bars_after.values[15] == 0
    (note,) = ax.texts
    assert "75.0%" in note.get_text()
    assert ax.yaxis.get_major_formatter()(0.025, 0) == "2.5%"
    figure.savefig(tmp_path / "histogram.png")


def test_weight_histogram_of_a_layer_that_is_all_zero_after():
    _, (ax,) = plots.make_figure(1)
    plots.plot_weight_histogram(ax, before=[0.5, -1.0], after=[0.0, 0.0])
    assert ax.patches[1].get_data().values.sum() == 0
    assert "100.0%" in ax.texts[0].get_text()


def test_weight_histogram_without_any_values_but_zeros(tmp_path):
    figure, (ax,) = plots.make_figure(1)
    plots.plot_weight_histogram(ax, np.zeros(4), np.zeros(4))
    figure.savefig(tmp_path / "zeros.png")
    assert "100.0%" in ax.texts[0].get_text()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.sparsity_figure([("a", 0.5)], max_bars=0), "`max_bars` must be a positive"),
        (lambda: plots.mask_figure(np.eye(3), max_pixels=-1), "`max_pixels` must be a positive"),
        (lambda: plots.histogram_figure(np.eye(3), num_bins=0), "`num_bins` must be a positive"),
        (lambda: plots.sensitivity_figure(None, max_rows=0.5), "`max_rows` must be a positive"),
        (lambda: plots.sensitivity_figure({}), r"must be what `keras_trim.sensitivity\(model, x\)"),
        (lambda: plots.sparsity_figure(0.5), r"must be `keras_trim.sparsity_report\(model\)`"),
    ],
)
def test_arguments_of_figures(draw, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        draw()
