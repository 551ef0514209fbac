"""Random models like those of users: graphs with branches, reuse, masks, nested and custom parts.

One function builds them from choices, so Hypothesis can shrink the choices and a benchmark can draw
them from a seed.
"""

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

_PACKAGE = "tests.random_models"
_ACTIVATIONS = [None, "relu", "tanh", "sigmoid", "gelu", "silu", "softmax", "elu", "hard_sigmoid"]
_MOST = 2000  # elements of an example within a model


@keras.saving.register_keras_serializable(_PACKAGE)
class Gate(layers.Layer):
    """A custom layer: sublayers, a weight, and dropout that depends on `training`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense, self.dropout = layers.Dense(units), layers.Dropout(0.5)

    def build(self, shape):
        self.dense.build(shape)
        self.gain = self.add_weight(shape=(self.units,), initializer="ones", name="gain")

    def call(self, x, training=None):
        return self.gain * self.dropout(ops.sigmoid(self.dense(x)), training=training) + ops.mean(
            x, axis=-1, keepdims=True
        )

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(_PACKAGE)
class BatchStatistics(layers.Layer):
    """Normalizes by the statistics of the batch itself, in training and in inference."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.after = layers.BatchNormalization(), layers.Dropout(0.0)

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return self.after(self.norm(ops.tanh(x), training=True))


@keras.saving.register_keras_serializable(_PACKAGE)
class Table(layers.Layer):
    """Creates a variable from values that already exist."""

    def build(self, shape):
        values = np.linspace(-1, 1, shape[-1], dtype="float32")
        self.table = keras.Variable(values, trainable=False, name="table")

    def call(self, x):
        return x * self.table

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable(_PACKAGE)
class Sorted(layers.Layer):
    """An operation that the engine has no kernel for."""

    def call(self, x):
        return ops.reshape(ops.sort(ops.reshape(x, (-1, x.shape[-1])), axis=-1), ops.shape(x))

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable(_PACKAGE)
class Inside(layers.Layer):
    """Returns what the layer inside returns, with its mask; its input, if there is none."""

    def __init__(self, layer=None, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, shape):
        if self.layer is not None and not self.layer.built:  # a loaded one is
            self.layer.build(shape)

    def call(self, x):
        return x if self.layer is None else self.layer(x)

    def compute_output_shape(self, shape):
        return shape if self.layer is None else self.layer.compute_output_shape(shape)

    def get_config(self):
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("layer")), **config)


@keras.saving.register_keras_serializable(_PACKAGE)
class Centered(layers.Conv2D):
    """A convolution that overrides a part of its parent's `call`."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel, axis=(0, 1, 2)))


@keras.saving.register_keras_serializable(_PACKAGE)
class Wrapped(keras.Model):
    """A subclassed model that wraps another one."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.scale = inner, layers.Rescaling(0.5)

    def call(self, inputs, training=None):
        return keras.tree.map_structure(self.scale, self.inner(inputs, training=training))

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("inner")), **config)

    def build_from_config(self, config):
        self(
            keras.tree.map_structure(
                lambda x: np.zeros((1, *x.shape[1:]), x.dtype), self.inner.input
            )
        )


class _Maker:
    """Builds one model.

    Args:
        choose: Function, list -> one of its elements.
    """

    def __init__(self, choose):
        self.choose = choose
        self.layers = []  # all layers so far, with the shape that each takes

    def chance(self, one_in):
        return self.choose([False] * (one_in - 1) + [True])

    def input(self, number):
        kind = self.choose(["image", "sequence", "tokens", "flat"])
        shape = {
            "image": (self.choose([5, 8]), self.choose([4, 7]), self.choose([1, 3, 8])),
            "sequence": (self.choose([4, 6]), self.choose([3, 8])),
            "tokens": (self.choose([4, 6]),),
            "flat": (self.choose([3, 8, 17]),),
        }[kind]
        dtype = "int32" if kind == "tokens" else "float32"
        x = keras.Input(shape, dtype=dtype, name=f"input_{number}")
        if kind == "tokens":
            mask = self.choose([True, True, False])
            embedding = layers.Embedding(9, self.choose([4, 8]), mask_zero=mask)
            return x, (Inside(embedding) if self.chance(3) else embedding)(x)
        if kind == "sequence" and self.chance(3):
            return x, layers.Masking()(x)
        return x, x

    def step(self, pool):
        """Adds one more layer on some of the existing tensors."""
        x = self.choose(pool[-3:])
        known = [layer for layer, shape in self.layers if shape == tuple(x.shape)]
        if known and self.chance(6):
            return self.choose(known)(x)
        alike = [y for y in pool if y.shape == x.shape]
        if len(alike) > 1 and self.chance(2):
            return self.merge([x, self.choose(alike)])
        make = {2: self.flat, 3: self.sequence, 4: self.image}[len(x.shape)]
        if self.chance(8):
            return self.nested(make, x)
        layer = make(x)
        self.layers.append((layer, tuple(x.shape)))
        return layer(x)

    def merge(self, inputs):
        kind = self.choose(
            [layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum]
            + [layers.Subtract]
            + [layers.Concatenate] * 2
        )
        return kind()(inputs)

    def nested(self, make, x):
        """Adds a model within the model."""
        inner = keras.Input(x.shape[1:])
        first = make(inner)(inner)
        second = layers.Activation(self.choose(["relu", "tanh"]))(first)
        if self.chance(2):
            model = keras.Model(inner, [second, first] if self.chance(3) else second)
            outputs = model(x)
            return outputs[0] + outputs[1] if isinstance(outputs, list) else outputs
        return keras.Sequential([keras.Input(x.shape[1:]), make(x), layers.ReLU()])(x)

    def anything(self, x):
        """Adds a layer that takes any shape."""
        width = x.shape[-1]
        return self.choose(
            [
                lambda: layers.Dense(self.choose([1, 4, 16]), activation=self.choose(_ACTIVATIONS)),
                lambda: layers.BatchNormalization(),
                lambda: layers.LayerNormalization(epsilon=0.1),
                lambda: layers.Dropout(0.4),
                lambda: layers.Activation(self.choose(_ACTIVATIONS[1:])),
                lambda: layers.Rescaling(0.5, 0.1),
                lambda: Gate(width),
                lambda: BatchStatistics(),
                lambda: Table(),
                lambda: Sorted(),
                lambda: Inside(layers.Dense(4)),
                lambda: Inside(),
            ]
        )()

    def flat(self, x):
        return self.choose(
            [self.anything] * 4
            + [lambda x: layers.RepeatVector(3), lambda x: layers.Reshape((x.shape[1], 1))]
        )(x)

    def sequence(self, x):
        cells = [layers.LSTM, layers.GRU, layers.SimpleRNN]
        return self.choose(
            [lambda: self.anything(x)] * 4
            + [
                lambda: self.choose(cells)(self.choose([3, 8]), return_sequences=self.chance(2)),
                lambda: self.choose(cells)(4, go_backwards=True, dropout=0.2),
                lambda: layers.Bidirectional(
                    self.choose(cells)(3, return_sequences=self.chance(2))
                ),
                lambda: layers.Conv1D(self.choose([4, 8]), self.choose([1, 3]), padding="same"),
                lambda: layers.GlobalAveragePooling1D(),
                lambda: layers.GlobalMaxPooling1D(),
                lambda: layers.MaxPooling1D(2, padding="same"),
                lambda: layers.Flatten(),
                lambda: layers.Permute((2, 1)),
                lambda: layers.TimeDistributed(layers.Dense(4, activation="relu")),
                lambda: SelfAttention(2, 4, causal=self.chance(3)),
                lambda: layers.ZeroPadding1D(1),
            ]
        )()

    def image(self, x):
        height, width, channels = x.shape[1:]
        size, same = self.choose([1, 3, 5]), {"padding": "same"}
        strides = self.choose([1, 1, 2])
        filters, activation = self.choose([4, 8, 16]), self.choose(_ACTIVATIONS)
        return self.choose(
            [lambda: self.anything(x)] * 4
            + [
                lambda: layers.Conv2D(filters, size, strides, activation=activation, **same),
                lambda: layers.Conv2D(filters, size, strides, activation=activation, **same),
                lambda: Centered(filters, size, strides, **same),
                lambda: layers.DepthwiseConv2D(size, strides, **same),
                lambda: layers.SeparableConv2D(filters, size, strides, **same),
                lambda: layers.Conv2DTranspose(filters, 3, strides, **same),
                lambda: layers.MaxPooling2D(2, strides, **same),
                lambda: layers.AveragePooling2D(3, strides, **same),
                lambda: layers.GlobalAveragePooling2D(keepdims=self.chance(2)),
                lambda: layers.ZeroPadding2D(((1, 0), (0, 2))),
                lambda: layers.UpSampling2D((1, 2)),
                lambda: layers.Reshape((height * width, channels)),
                lambda: layers.Permute(self.choose([(2, 1, 3), (3, 1, 2)])),
                lambda: layers.Flatten(),
                lambda: layers.GroupNormalization(1, epsilon=0.1),
            ]
        )()


@keras.saving.register_keras_serializable(_PACKAGE)
class SelfAttention(layers.Layer):
    """Attention of a sequence to itself. Keras propagates the masks."""

    def __init__(self, heads, width, causal=False, **kwargs):
        super().__init__(**kwargs)
        self.settings = {"heads": heads, "width": width, "causal": causal}
        self.attention = layers.MultiHeadAttention(heads, width, dropout=0.1)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return x + self.attention(x, x, use_causal_mask=self.settings["causal"])

    def get_config(self):
        return {**super().get_config(), **self.settings}


def make_model(choose):
    """Builds a random model with random weights, some of them zero.

    Args:
        choose: Function, list -> one of its elements, such as `random.Random(seed).choice`.

    Returns:
        Built Keras model.
    """
    maker = _Maker(choose)
    ends = [maker.input(number) for number in range(choose([1, 1, 1, 2]))]
    inputs, pool = [end[0] for end in ends], [end[1] for end in ends]
    for _ in range(choose(range(3, 16))):
        y = maker.step(pool)
        if 0 < np.prod(y.shape[1:]) <= _MOST:
            pool.append(y)
    if len(inputs) == 2:  # what comes of both
        parts = [layers.Dense(4)(layers.Flatten()(x)) for x in (ends[0][1], ends[1][1])]
        pool.append(layers.Concatenate()(parts))
    flat = pool[-1] if len(pool[-1].shape) == 2 else layers.Flatten()(pool[-1])
    outputs = [layers.Dense(3, activation=choose(["softmax", None]))(flat)]
    if choose([True, False, False]):
        outputs.append(choose(pool))
    model = keras.Model(
        inputs[0] if len(inputs) == 1 else inputs, outputs if len(outputs) > 1 else outputs[0]
    )
    randomize(model, choose([0, 0.5, 0.9]), choose(range(100)))
    if choose([False, False, False, True]):
        wrapped = Wrapped(model)
        wrapped(make_data(model, 2, 0))
        return wrapped
    return model


def randomize(model, sparsity, seed):
    """Sets random weights with zeros, small enough that outputs of many layers stay moderate."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        value = rng.standard_normal(variable.shape).astype("float32")
        if "variance" in variable.path or "gamma" in variable.path:
            value = np.abs(value) / 2 + 0.75
        elif value.ndim > 1:
            value /= np.sqrt(max(np.prod(variable.shape[:-1]), 1))
            value[rng.random(value.shape) < sparsity] = 0
        variable.assign(value)


def make_data(model, batch_size, seed):
    """Returns inputs for a model, in its structure. Token sequences are padded with zeros."""
    rng = np.random.default_rng(seed)
    graph = getattr(model, "inner", model)

    def draw(x):
        shape = (batch_size, *(n or 5 for n in x.shape[1:]))
        if "int" in x.dtype:
            tokens = rng.integers(1, 9, shape).astype(x.dtype)
            ends = rng.integers(1, shape[1] + 1, batch_size)
            return np.where(np.arange(shape[1]) < ends[:, None], tokens, 0).astype(x.dtype)
        return rng.standard_normal(shape).astype(x.dtype)

    return keras.tree.map_structure(draw, graph._inputs_struct)


@st.composite
def models(draw):
    """Hypothesis strategy of models."""
    return make_model(lambda options: draw(st.sampled_from(list(options))))
