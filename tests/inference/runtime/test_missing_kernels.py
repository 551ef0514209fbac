"""A program without its kernels, as in applications that were frozen without them."""

import keras
import pytest
from helpers import numbers, randomize

from keras_trim.inference import Engine
from keras_trim.inference.kernels import instructions
from keras_trim.inference.runtime import interpreter


def test_a_kernel_that_is_missing_is_an_error(monkeypatch):
    model = randomize(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]))
    names = [line.instruction for line in Engine(model, 1).program()]
    codes = {i.code: i.name for i in instructions.INSTRUCTIONS if i.name in names}
    monkeypatch.setattr(interpreter, "_MISSING", codes)
    with pytest.raises(RuntimeError, match="frozen application.*take_input"):
        Engine(model, 1)(numbers(2, 6))
