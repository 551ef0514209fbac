"""What holds for all tests of the engine."""

import pytest

from keras_trim.inference import engine


@pytest.fixture(autouse=True)
def all_threads(monkeypatch):
    """The small networks of the tests run on as many threads as they ask for."""
    monkeypatch.setattr(engine, "_SMALL", 0)
