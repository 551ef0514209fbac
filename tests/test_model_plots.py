import sys

import numpy as np
import pytest

import keras_trim
from keras_trim import plots
from keras_trim.one_shot.sensitivity import SensitivityRow
from keras_trim.plots.mask import density_per_pixel


def test_sparsity_bars():
    figure = plots.sparsity_figure([("a/kernel", 0.25), ("x" * 99, 1.0), ("c", 0.5)], max_bars=2)
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [1, 1, 0.25, 1.0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "a/kernel"
    assert len(labels[1]) < 40
    assert "1 more are not shown" in ax.get_xlabel()
    with pytest.raises(ValueError, match="at least one weight"):
        plots.sparsity_figure([])


def test_histogram_counts_every_value_once():
    values = np.random.default_rng(0).normal(size=1000).astype("float32")
    values[:800] = 0
    zeros, others = plots.histogram_figure(values).axes
    assert zeros.patches[0].get_height() == 0.8
    counts = others.patches[0].get_data().values
    assert counts.sum() == pytest.approx(0.2)
    assert others.get_ylim()[1] < 0.1  # not squeezed by the zeros


@pytest.mark.parametrize("values", [[0, 0], [3.0], [np.nan, np.inf, 1, 0], [True, False], [-1e-30]])
def test_histogram_of_odd_values(tmp_path, values):
    figure = plots.histogram_figure(np.array(values))
    figure.savefig(tmp_path / "histogram.png")
    assert ("2 NaN" in figure.axes[1].get_xlabel()) == (len(values) == 4)


def test_mask_shows_each_weight_where_they_fit():
    weights = np.array([[0, 1, 2], [3, 0, 0]])
    (image,) = plots.mask_figure(weights).axes[0].images
    np.testing.assert_array_equal(image.get_array(), weights != 0)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (256, 3), (257, 600), (1000, 2)])
def test_density_counts_every_weight_once(shape):
    mask = np.random.default_rng(0).random(shape) < 0.3
    density, part = density_per_pixel(mask, 256)
    assert density.shape == tuple(min(size, 256) for size in shape)
    assert part == tuple(-(-size // 256) for size in shape)
    starts = [np.arange(n) * size // n for n, size in zip(density.shape, shape, strict=True)]
    sizes = [np.diff(np.append(s, size)) for s, size in zip(starts, shape, strict=True)]
    assert (density * np.outer(*sizes)).sum() == pytest.approx(mask.sum())
    last = mask[starts[0][-1] :, starts[1][-1] :]
    assert density[-1, -1] == last.mean()


def test_pictures_of_nothing():
    for draw in (plots.histogram_figure, plots.mask_figure):
        with pytest.raises(ValueError, match="must hold values"):
            draw(np.zeros((0, 3)))


def test_pyplot_is_left_alone():
    plots.mask_figure(np.eye(3))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_names_are_no_formulas(tmp_path):
    name = r"$\cost$/kernel"
    sensitivity = keras_trim.Sensitivity([SensitivityRow(name, (2, 2), 0.5, 0.1)], name, 0.0)
    figures = [
        plots.sparsity_figure([(name, 0.5)]),
        plots.histogram_figure(np.eye(2), name),
        plots.mask_figure(np.eye(2), name),
        plots.sensitivity_figure(sensitivity),
    ]
    for index, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{index}.png")
