"""Small models of every exported kind, with four fifths of their weights zero."""

import keras
import numpy as np
from keras import layers

import keras_trim


def cnn():
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(16, 3, padding="same", strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(32, 1, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(4),
        ]
    )


def mlp():
    return keras.Sequential(
        [keras.Input((64,)), layers.Dense(128, activation="relu"), layers.Dense(4)]
    )


def lstm():
    inputs = keras.Input((6, 8))  # functional, with one input
    return keras.Model(inputs, layers.Dense(4)(layers.LSTM(64)(inputs)))


def branches():
    """Two inputs, two outputs of different shapes, and a nested model."""
    left, right = keras.Input((8,), name="left"), keras.Input((6,), name="right")
    joined = layers.Concatenate()([left, right])
    inner = keras.Sequential([keras.Input((14,)), layers.Dense(16, activation="tanh")])
    hidden = inner(joined)
    outputs = [layers.Dense(3, name="wide")(hidden), layers.Dense(2, name="narrow")(hidden)]
    return keras.Model([left, right], outputs)


MODELS = {"cnn": cnn, "mlp": mlp, "lstm": lstm, "branches": branches}


def make(name, **pruning):
    """Returns a model of `MODELS`, by default pruned to 80 %."""
    keras.utils.set_random_seed(1)
    model = MODELS[name]()
    randomize(model)
    return keras_trim.prune(model, **{"sparsity": 0.8, **pruning})


def randomize(model):
    """Sets every weight, including biases, to a value that a converter must not lose."""
    rng = np.random.default_rng(2)
    for variable in model.weights:
        scale = 0.3 if len(variable.shape) > 1 else 0.1
        values = 1 + rng.standard_normal(variable.shape) * scale
        variable.assign(values if "variance" in variable.path else values - 1)


def inputs_of(model, batch_size):
    rng = np.random.default_rng(3)
    return [
        rng.standard_normal((batch_size, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]


def outputs_of(model, inputs):
    outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(outputs)]


def run_litert(path, inputs):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path), num_threads=1).get_signature_runner()
    names = list(runner.get_input_details())
    if len(names) > 1:  # LiteRT sorts them
        names = ["left", "right"]
    outputs = runner(**dict(zip(names, inputs, strict=True)))
    return [outputs[name] for name in sorted(outputs, key=lambda name: (len(name), name))]


def run_onnx(path, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def run_openvino(path, inputs):
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(str(path), "CPU", settings)
    found = network(dict(enumerate(inputs)))
    return [found[output] for output in network.outputs]


def assert_close(values, expected, tolerance=1e-5):
    assert [value.shape for value in values] == [value.shape for value in expected]
    for value, target in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, target, rtol=0, atol=tolerance * np.abs(target).max())
