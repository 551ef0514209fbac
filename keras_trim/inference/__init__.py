"""Runs pruned Keras models on the CPU and skips the zeros."""

from keras_trim.inference.engine import Engine
from keras_trim.inference.summary import BenchmarkResult, EngineRow, EngineSummary

__all__ = ["BenchmarkResult", "Engine", "EngineRow", "EngineSummary"]
