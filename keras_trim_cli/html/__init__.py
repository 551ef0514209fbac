"""The report as one self-contained HTML page."""

from keras_trim_cli.html.page import render as render
