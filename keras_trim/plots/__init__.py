"""Plots of pruning, made with Matplotlib, which is imported only when needed.

Each `*_figure` returns a `matplotlib.figure.Figure`: `figure.savefig("file.png")`.
"""

from keras_trim.plots.histogram import histogram_figure
from keras_trim.plots.layers import sparsity_figure
from keras_trim.plots.mask import mask_figure
from keras_trim.plots.schedule import schedule_figure
from keras_trim.plots.sensitivity import sensitivity_figure
from keras_trim.plots.training import make_figure, plot_schedule, plot_weight_histogram

__all__ = [
    "histogram_figure",
    "make_figure",
    "mask_figure",
    "plot_schedule",
    "plot_weight_histogram",
    "schedule_figure",
    "sensitivity_figure",
    "sparsity_figure",
]
