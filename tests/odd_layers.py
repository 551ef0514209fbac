"""Models of layers with weights of any name and shape, and the warnings that marking them gives."""

import warnings

import keras
from keras import layers

import keras_trim


class Weights(layers.Layer):
    """A custom layer with unused weights of any names (`None`: without a name) and shapes."""

    def __init__(self, shapes, trainable_weights=True, **kwargs):
        super().__init__(**kwargs)
        self.shapes = shapes
        self.own = [
            self.add_weight(shape=shape, name=name, trainable=trainable_weights)
            for name, shape in shapes.items()
        ]
        self.built = True

    def call(self, x):
        return x


def model_of(*stack):
    return keras.Sequential([keras.Input((8,)), *stack, layers.Dense(1)])


def told(action):
    """Lists the user warnings that an action raises."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(one.message) for one in caught if one.category is UserWarning]


def pruned(model):
    return [row.path for row in keras_trim.sparsity_report(model).pruned_rows]
