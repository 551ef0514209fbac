"""The measured models and their data, the same for Keras 3 and legacy Keras."""

import numpy as np

NUM_CLASSES = 10

# Name -> (shape of one example, batch size).
SHAPES = {
    "mlp": ((784,), 128),
    "mobilenet": ((96, 96, 3), 16),
}


def build(keras, name):
    """Returns the model, with the same weights in every process.

    Args:
        keras: The module `keras` or `tf_keras`.
        name: `"mlp"` or `"mobilenet"`.
    """
    shape, _ = SHAPES[name]
    if name == "mobilenet":
        model = keras.applications.MobileNet(
            weights=None, input_shape=shape, classes=NUM_CLASSES, classifier_activation=None
        )
    else:
        model = keras.Sequential(
            [
                keras.layers.Input(shape),
                keras.layers.Dense(512, activation="relu"),
                keras.layers.Dense(512, activation="relu"),
                keras.layers.Dense(NUM_CLASSES),
            ]
        )
    model.set_weights(_kernels(model.get_weights()))
    return model


def build_cnn(keras):
    """Returns a small network for MNIST. It takes images of shape (28, 28, 1) in [0, 1]."""
    return keras.Sequential(
        [
            keras.layers.Input((28, 28, 1)),
            keras.layers.Conv2D(12, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(24, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(NUM_CLASSES),
        ]
    )


def compile_model(keras, model):
    """Compiles with Adam, slow enough that random labels are not memorized."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss)


def _kernels(weights, seed=0):
    """Returns the weights with newly drawn kernels (normal, scaled by fan-in), others unchanged."""
    rng = np.random.default_rng(seed)
    drawn = []
    for weight in weights:
        if weight.ndim >= 2:
            # A depthwise kernel, (height, width, channels, 1), only sums over its window.
            fan_in = np.prod(weight.shape[:-1] if weight.shape[-1] > 1 else weight.shape[:2])
            weight = rng.standard_normal(weight.shape, "float32") * np.float32((2 / fan_in) ** 0.5)
        drawn.append(weight)
    return drawn


def make_data(name, batches):
    """Returns random examples and labels for this many batches: arrays `(x, y)`."""
    shape, batch_size = SHAPES[name]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batches * batch_size, *shape), "float32")
    return x, rng.integers(0, NUM_CLASSES, batches * batch_size)


def repeat_batches(name, data):
    """Yields the batches of `make_data` over and over."""
    x, y = data
    _, batch_size = SHAPES[name]
    while True:
        for start in range(0, len(x), batch_size):
            yield x[start : start + batch_size], y[start : start + batch_size]


def make_dataset(name, data):
    """Returns the data as an in-memory `tf.data.Dataset`, the fastest way to feed TensorFlow."""
    import tensorflow as tf

    _, batch_size = SHAPES[name]
    return tf.data.Dataset.from_tensor_slices(data).batch(batch_size).repeat().prefetch(2)


def random_weight(side):
    """Returns a float32 matrix of standard normal numbers."""
    return np.random.default_rng(0).standard_normal((side, side), "float32")
