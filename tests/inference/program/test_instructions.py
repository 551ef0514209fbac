"""Instructions are checked when they are emitted, and listed by the names of their operands."""

import keras
import numpy as np
import pytest
from helpers import numbers, randomize

from keras_trim.inference import Engine, ForcedTuner
from keras_trim.inference.kernels.instructions import (
    FILL,
    INSTRUCTIONS,
    MOVE,
    OPERANDS,
    TASKS,
    UNARY,
)
from keras_trim.inference.program.builder import Builder
from keras_trim.inference.program.tensors import Tensor


def test_each_instruction_has_its_code_and_its_columns():
    assert [instruction.code for instruction in INSTRUCTIONS] == list(range(len(INSTRUCTIONS)))
    for instruction in INSTRUCTIONS:
        columns = [getattr(instruction.at, operand.name) for operand in instruction.operands]
        counts = [operand.count for operand in instruction.operands]
        assert columns == [1, *np.cumsum(counts)[:-1] + 1]
        assert sum(counts) < OPERANDS
    assert TASKS.operands[-1].is_optional


@pytest.mark.parametrize(
    ("instruction", "operands", "message"),
    [
        (FILL, {"y": "tensor", "value": 0.0}, "fill needs the operand size"),
        (FILL, {"y": "tensor", "size": 3}, r"has the factors \('value',\).*not \['value'\]"),
        (FILL, {"y": "tensor", "size": 3, "value": 0.0, "x": 1}, r"Received: \['x'\]"),
        (FILL, {"y": 7, "size": 3, "value": 0.0}, "7 in the place of arena"),
        (FILL, {"y": "tensor", "size": "tensor", "value": 0.0}, "in the place of number"),
        (MOVE, {"x": "tensor", "y": "tensor", "sizes": [1]}, "sizes .* is 8 integers"),
    ],
)
def test_operands_are_checked(instruction, operands, message):
    x = Tensor((3,), "NHWC")
    operands = {name: x if value == "tensor" else value for name, value in operands.items()}
    with pytest.raises(TypeError, match=message):
        Builder(1, None).emit(instruction, **operands)


def test_optional_operands_are_zero():
    operands, _ = TASKS.encode({"num_tasks": 1, "first_row": 2, "rows_per_thread": 3, "one": 1})
    assert operands == [1, 2, 3, 1, *[0] * TASKS.operands[-1].count]


def test_a_program_is_listed_line_by_line():
    layers = [keras.Input((300,)), keras.layers.Dense(200, name="d")]
    layers += [keras.layers.Activation("gelu", name="g")]
    model = randomize(keras.Sequential(layers), 0.5)
    engine = Engine(model, num_threads=1, tuner=ForcedTuner("CSR"))
    listing = engine.program(numbers(2, 300))
    lines = [(line.layer, line.instruction) for line in listing]
    assert lines == [("input", "take_input"), ("d", "spmv_csr"), ("g", "unary")]
    product, activation = listing[1:]
    assert product.operands["batch"] == 2
    assert product.operands["outputs"] == 200
    assert activation.operands["size"] == 400
    assert activation.operands["x"] == product.operands["y"]
    assert set(activation.operands) == {*vars(UNARY.at)} - {
        name for name in vars(UNARY.at) if name.startswith("__")
    }
    text = str(listing).splitlines()
    assert len(text) == 3
    assert " spmv_csr x=" in text[1]
    assert text[1].endswith("# d")


def test_steps_in_keras_and_tasks_are_listed():
    class Twice(keras.layers.Layer):
        def call(self, x):
            return keras.ops.cumsum(x, axis=1)

    inputs = keras.Input((4,))
    engine = Engine(keras.Model(inputs, Twice(name="twice")(inputs)), num_threads=1)
    (line,) = [line for line in engine.program() if line.instruction == "python"]
    assert line.row is None
    assert line.operands == {"inputs": [[1, 4]], "outputs": [[1, 4]]}


def test_views_of_views_may_be_thousands_deep():
    whole = tensor = Tensor((1, 9000), "NHWC")
    for _ in range(3000):
        tensor, outer = Tensor((1, 2), "NHWC"), tensor
        tensor.lie_in(outer, 2)
    assert tensor.base is whole
    assert (tensor.start, tensor.end) == (6000, 6002)
