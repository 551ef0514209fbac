"""The networks whose inference is measured: random weights, pruned by magnitude.

With plain random weights, the signal vanishes after some tens of layers, or becomes nearly the same
for all inputs. So batch normalization gets the statistics of random examples, as if trained.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and its pruning.

    Args:
        title: String.
        build: Function `keras -> model`.
        shape: Tuple of integers: the shape of one example, channels last.
        pruned: Function `(layer, array) -> bool`: whether a weight of rank 2 or more is pruned.
        goals: Dict: sparsity -> the engine's goals: its speedup over the fastest dense runtime, and
            over DeepSparse (or `None`).
    """

    title: str
    build: object
    shape: tuple
    pruned: object
    goals: dict


def _is_depthwise(layer):
    return type(layer).__name__ == "DepthwiseConv2D"


def _pointwise(layer, weight):
    """Selects kernels of 1x1 convolutions and of the classifier."""
    return weight.ndim == 2 or (not _is_depthwise(layer) and weight.shape[:2] == (1, 1))


def _convolutions(layer, weight):
    return weight.ndim == 4 and not _is_depthwise(layer)


def _all_but_depthwise(layer, weight):
    return not _is_depthwise(layer)


def _application(name, size):
    def build(keras):
        return getattr(keras.applications, name)(
            weights=None, input_shape=_image_shape(keras, size, 3), classifier_activation=None
        )

    return build


def _image_shape(keras, size, channels):
    height, width = (size, size) if isinstance(size, int) else size
    if keras.config.image_data_format() == "channels_first":
        return channels, height, width
    return height, width, channels


def _ds_cnn_large(keras):
    """DS-CNN-L of Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers" (2017).

    Its input is 49 frames of 10 MFCCs. See arXiv:1711.07128.
    """
    layers = keras.layers
    axis = 1 if keras.config.image_data_format() == "channels_first" else -1
    inputs = x = keras.Input(_image_shape(keras, (49, 10), 1))

    def normalized(x):
        return layers.ReLU()(layers.BatchNormalization(axis=axis)(x))

    x = layers.Conv2D(276, (10, 4), strides=(2, 1), padding="same", use_bias=False)(x)
    x = normalized(x)
    for block in range(5):
        strides = 2 if block == 0 else 1
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = normalized(x)
        x = normalized(layers.Conv2D(276, 1, use_bias=False)(x))
    return keras.Model(inputs, layers.Dense(12)(layers.GlobalAveragePooling2D()(x)))


def _lstm(keras):
    return keras.Sequential(
        [
            keras.Input((50, 1024)),
            keras.layers.LSTM(1024, return_sequences=True),
            keras.layers.LSTM(1024),
        ]
    )


def _mlp(keras):
    return keras.Sequential(
        [
            keras.Input((4096,)),
            keras.layers.Dense(4096, activation="relu"),
            keras.layers.Dense(4096),
        ]
    )


_DENSE = {0.0: (0.8, None)}

NETWORKS = {
    "mobilenet_v1": Network(
        "MobileNetV1 224",
        _application("MobileNet", 224),
        (224, 224, 3),
        _pointwise,
        {**_DENSE, 0.8: (2.0, 1.2), 0.9: (3.0, 1.3)},
    ),
    "mobilenet_v2": Network(
        "MobileNetV2 224",
        _application("MobileNetV2", 224),
        (224, 224, 3),
        _pointwise,
        {**_DENSE, 0.8: (1.5, 1.3), 0.9: (2.0, 1.3)},
    ),
    "inception_v3": Network(
        "InceptionV3 299",
        _application("InceptionV3", 299),
        (299, 299, 3),
        _convolutions,
        {**_DENSE, 0.875: (3.0, 1.2)},
    ),
    "resnet50": Network(
        "ResNet50 224",
        _application("ResNet50", 224),
        (224, 224, 3),
        _all_but_depthwise,
        {**_DENSE, 0.9: (3.5, 1.2)},
    ),
    "ds_cnn": Network(
        "DS-CNN-L keyword spotting",
        _ds_cnn_large,
        (49, 10, 1),
        _all_but_depthwise,
        {**_DENSE, 0.8: (1.5, None)},
    ),
    "lstm": Network(
        "2 LSTM layers of 1024, 50 steps",
        _lstm,
        (50, 1024),
        _all_but_depthwise,
        {**_DENSE, 0.9: (4.0, None)},
    ),
    "mlp": Network(
        "MLP 4096-4096-4096", _mlp, (4096,), _all_but_depthwise, {**_DENSE, 0.95: (8.0, None)}
    ),
}


def draw_weights(keras, name, sparsity):
    """Returns the weights of a network, a list of arrays.

    Args:
        keras: The module `keras`.
        name: String. A key of `NETWORKS`.
        sparsity: Float.
    """
    network = NETWORKS[name]
    model = network.build(keras)
    rng = np.random.default_rng(0)
    normalizations = []
    for layer in model.layers:
        drawn = []
        for variable in layer.weights:
            weight = _draw(rng, variable.name, tuple(variable.shape))
            if weight.ndim >= 2:
                if network.pruned(layer, weight):
                    weight = _prune(weight, sparsity)
                weight = _scale(weight, _is_depthwise(layer))
            drawn.append(weight.astype(np.float32))
        layer.set_weights(drawn)
        if isinstance(layer, keras.layers.BatchNormalization):
            normalizations.append(layer)
    for layer in normalizations:
        layer.momentum = 0.0  # use the statistics of the batch as they are
    if normalizations:
        model(np.concatenate([make_input(name, seed) for seed in range(2, 6)]), training=True)
    return model.get_weights()


def build(keras, name, path):
    """Returns the network in Keras's current image data format.

    Args:
        keras: The module `keras`.
        name: String. A key of `NETWORKS`.
        path: Path of an NPZ file with the network's weights.
    """
    model = NETWORKS[name].build(keras)
    with np.load(path) as weights:
        model.set_weights([weights[key] for key in weights.files])
    return model


def _draw(rng, name, shape):
    if name == "gamma":
        return rng.uniform(0.75, 1.25, shape)
    return rng.standard_normal(shape) * (0.1 if len(shape) == 1 else 1)


def _prune(weight, sparsity):
    count = round(weight.size * sparsity)
    pruned = weight.reshape(-1).copy()
    pruned[np.argpartition(np.abs(pruned), count)[:count] if count else []] = 0
    return pruned.reshape(weight.shape)


def _scale(kernel, is_depthwise):
    """Scales a kernel so that, after a ReLU, it keeps the size of the signal on average."""
    outputs = math.prod(kernel.shape[2:]) if is_depthwise else kernel.shape[-1]
    return kernel * math.sqrt(2 * outputs / np.square(kernel).sum())


def make_input(name, seed=0):
    """Returns a batch of one random example, channels last."""
    return np.random.default_rng(seed).standard_normal((1, *NETWORKS[name].shape), np.float32)
