import functools

import keras
import pytest
from keras import layers

import keras_trim

POLICY = keras_trim.PruneForLatencyOnXNNPack()
BLOCK_SHAPE = (8, 8, 8)  # the stem's output for an image of 16x16


def stem():
    return [
        layers.ZeroPadding2D(1),
        layers.Conv2D(8, 3, strides=2, name="stem"),
        layers.BatchNormalization(),
        layers.ReLU(),
    ]


def block():
    return [
        layers.DepthwiseConv2D(3, padding="same"),
        layers.ReLU(),
        layers.Conv2D(8, 1, name="pointwise"),
    ]


def head(**pooling):
    return [
        layers.GlobalAveragePooling2D(**{"keepdims": True, **pooling}),
        layers.Flatten(),
        layers.Dense(4, name="logits"),
    ]


def sequential(*within, start=None, end=None, channels=3):
    """Returns a model that XNNPACK runs sparsely, with extra layers in its cluster."""
    stack = [*(start or stem()), *block(), *within, *(end or head())]
    return keras.Sequential([keras.Input((16, 16, channels)), *stack])


def chain(stack, x):
    return functools.reduce(lambda x, layer: layer(x), stack, x)


def functional(within=lambda x: x, outputs=lambda x: chain(head(), x)):
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, outputs(within(chain([*stem(), *block()], inputs))))


def mark(model):
    return keras_trim.prune_low_magnitude(model, pruning_policy=POLICY)


def pruned(model):
    """Lists the layers whose kernels are pruned."""
    report = keras_trim.sparsity_report(model)
    assert all(row.path.endswith("kernel") for row in report.pruned_rows)
    return [row.layer for row in report.pruned_rows] if report.is_marked else []


def nested(model):
    """Wraps `model` as a layer of another model."""
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, layers.Softmax()(model(inputs)))


def inner(*stack, shape=BLOCK_SHAPE):
    return keras.Sequential([keras.Input(shape), *stack])


@pytest.mark.parametrize("make", [sequential, functional])
def test_1x1_convolutions_are_pruned(make):
    model = mark(make())
    assert pruned(model) == ["pointwise"]
    reasons = {row.path.split("/")[-2]: row.reason for row in _kernels(model)}
    assert reasons["stem"] == "PruneForLatencyOnXNNPack does not allow it"
    assert reasons["logits"] == "PruneForLatencyOnXNNPack does not allow it"


def _kernels(model):
    rows = keras_trim.sparsity_report(model).rows
    return [row for row in rows if row.path.endswith("/kernel") and row.layer != "pointwise"]


@pytest.mark.parametrize(
    ("layer", "is_allowed"),
    [
        (layers.Conv2D(8, 1), True),
        (layers.Conv2D(4, (1, 1), strides=2), True),
        (layers.Conv2D(4, (1, 3)), False),
        (layers.Conv2D(8, 3), False),
        (layers.Conv1D(4, 1), False),
        (layers.Conv3D(4, 1), False),
        (layers.Conv2DTranspose(4, 1), False),
        (layers.DepthwiseConv2D(1), False),
        (layers.SeparableConv2D(4, 1), False),
        (layers.Dense(4), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_allow_pruning(layer, is_allowed):
    assert POLICY.allow_pruning(layer) is is_allowed


@pytest.mark.parametrize(
    "within",
    [
        [layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3)],
        [layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3, strides=2)],
        [layers.ZeroPadding2D(2), layers.DepthwiseConv2D(5, strides=2)],
        [layers.DepthwiseConv2D(5, padding="same", activation="relu6")],
        [layers.Conv2D(8, 1, activation="relu")],
        [layers.Conv2D(8, 1, activation=layers.LeakyReLU())],
        [layers.Activation("hard_swish")],  # Keras names it hard_silu
        [layers.Activation("sigmoid")],
        [layers.LeakyReLU(), layers.ELU()],
        [layers.UpSampling2D(2, interpolation="bilinear")],
    ],
    ids=lambda within: "-".join(type(layer).__name__ for layer in within),
)
def test_layers_with_a_channels_first_kernel(within):
    assert "pointwise" in pruned(mark(sequential(*within)))


def traceless():
    """Returns layers that leave nothing in a converted file."""
    return [
        layers.Identity(),
        layers.Dropout(0.1),
        layers.SpatialDropout2D(0.1),
        layers.AlphaDropout(0.1),
        layers.GaussianDropout(0.1),
        layers.GaussianNoise(0.1),
        layers.ActivityRegularization(l2=0.1),
        layers.Activation("linear"),
    ]


@pytest.mark.parametrize("layer", traceless(), ids=lambda layer: type(layer).__name__)
def test_layers_that_leave_nothing_in_the_file(layer):
    assert pruned(mark(sequential(layer))) == ["pointwise"]


def test_layers_that_leave_nothing_hide_no_padding_and_no_output():
    padding, *convolution = stem()
    reduce = [layers.ZeroPadding2D(1), layers.Dropout(0.1), layers.DepthwiseConv2D(3, strides=2)]
    model = sequential(
        *reduce,
        start=[layers.GaussianNoise(0.1), padding, layers.Identity(), *convolution],
        end=[layers.GlobalAveragePooling2D(keepdims=True), layers.Dropout(0.1)],
    )
    assert pruned(mark(model)) == ["pointwise"]
    with pytest.raises(ValueError, match="no channels-first kernel.*MaxPooling2D"):
        mark(sequential(layers.Identity(), layers.MaxPooling2D(), layers.Dropout(0.1)))
    model = functional(lambda x: layers.Add()([x, layers.Dropout(0.1)(x)]))
    assert pruned(mark(model)) == ["pointwise"]
    model = functional(lambda x: x + layers.Dropout(0.1)(layers.Identity()(x)))
    assert pruned(mark(model)) == ["pointwise"]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's converter makes the file"
)
def test_what_the_converter_leaves_of_them():
    assert operations_in_file(traceless()) == operations_in_file([])
    assert operations_in_file([layers.UnitNormalization()]) != operations_in_file([])


def operations_in_file(within):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    model = sequential(*within)
    function = tf.function(lambda x: model(x, training=False))
    traced = function.get_concrete_function(tf.TensorSpec((1, 16, 16, 3)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], model)
    interpreter = Interpreter(model_content=converter.convert())
    return [operation["op_name"] for operation in interpreter._get_ops_details()]


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (layers.MaxPooling2D(), "no channels-first kernel"),
        (layers.ZeroPadding2D(1), "a ZeroPadding2D must feed a depthwise convolution"),
        (layers.SeparableConv2D(4, 3, padding="same"), "no channels-first kernel"),
        (layers.LayerNormalization(), "no channels-first kernel"),
        (layers.Conv2D(8, 3), "a convolution must be 1x1, without strides"),
        (layers.Conv2D(8, 1, strides=2), "a convolution must be 1x1, without strides"),
        (layers.Conv2D(8, 1, groups=2), "a convolution must be 1x1, without strides"),
        (layers.Conv2D(8, 1, activation="tanh"), "its activation must be one of .*'relu'"),
        (
            layers.Conv2D(8, 1, data_format="channels_first"),
            "its data_format must be 'channels_last'",
        ),
        (layers.Activation("tanh"), "its activation must be one of"),
        (layers.Activation(lambda x: x), "its activation must be one of"),
        (layers.BatchNormalization(axis=1), "must be on axis 3"),
        (layers.UpSampling2D(2), "must be bilinear"),
        (layers.DepthwiseConv2D(3), "must be 3x3 or 5x5"),
        (layers.DepthwiseConv2D(3, padding="same", strides=2), "must be 3x3 or 5x5"),
        (layers.DepthwiseConv2D(7, padding="same"), "must be 3x3 or 5x5"),
        (layers.DepthwiseConv2D((3, 5), padding="same"), "must be 3x3 or 5x5"),
        (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), "depth_multiplier=1"),
        (layers.DepthwiseConv2D(3, padding="same", dilation_rate=2), "no dilation"),
        (layers.DepthwiseConv2D(3, padding="same", activation="tanh"), "its activation must be"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_layers_without_one_are_named(layer, problem):
    model = sequential(layer)
    received = rf"Received: layer '{layer.name}' \({type(layer).__name__}\)"
    with pytest.raises(ValueError, match=f"{problem}.*{received}"):
        mark(model)
    assert pruned(model) == []


@pytest.mark.parametrize(
    "padding", [layers.ZeroPadding2D(2), layers.ZeroPadding2D(((0, 1), (0, 1)))]
)
def test_a_depthwise_convolution_needs_equal_padding_of_its_radius(padding):
    depthwise = layers.DepthwiseConv2D(3, strides=2, name="reduce")
    with pytest.raises(ValueError, match=r"behind a ZeroPadding2D of 1 .*'reduce'"):
        mark(sequential(padding, depthwise))


def test_global_average_pooling_keeps_dimensions():
    pooling = head(keepdims=False, name="pool")
    with pytest.raises(ValueError, match=r"needs keepdims=True\. Received: layer 'pool'"):
        mark(sequential(end=pooling))


@pytest.mark.parametrize(
    "start",
    [
        [layers.Conv2D(8, 3, strides=2)],
        [layers.ZeroPadding2D(2), layers.Conv2D(8, 3, strides=2)],
        [layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(8, 3, strides=2)],
        [layers.ZeroPadding2D(1), layers.ReLU(), layers.Conv2D(8, 3, strides=2)],
        [layers.ZeroPadding2D(1), layers.Conv2D(8, 3)],
        [layers.ZeroPadding2D(1), layers.Conv2D(8, 5, strides=2)],
        [layers.ZeroPadding2D(1), layers.Conv2D(8, 3, strides=2, padding="same")],
    ],
)
def test_where_the_cluster_starts(start):
    model = sequential(start=start)
    with pytest.raises(ValueError, match=f"every input passes through a 3x3.*model={model.name}"):
        mark(model)


def test_the_first_convolution_has_3_channels():
    with pytest.raises(ValueError, match="on 3 channels"):
        mark(sequential(channels=4))


def test_the_first_convolution_has_the_channels_last():
    first = {"data_format": "channels_first"}
    stem = layers.Conv2D(8, 3, strides=2, name="a", **first)
    pool = layers.GlobalAveragePooling2D(keepdims=True)
    model = keras.Sequential(
        [keras.Input((3, 16, 16)), layers.ZeroPadding2D(1, **first), stem, layers.ReLU(), pool]
    )
    with pytest.raises(ValueError, match="'channels_last'. Received: layer 'a'"):
        mark(model)


def test_the_first_convolution_has_a_known_activation():
    start = [layers.ZeroPadding2D(1), layers.Conv2D(8, 3, strides=2, activation="tanh", name="a")]
    with pytest.raises(ValueError, match="its activation must be .* Received: layer 'a'"):
        mark(sequential(start=start))


def test_layers_outside_the_cluster_may_be_any():
    start = [layers.Rescaling(1 / 255), layers.LayerNormalization(), *stem()]
    end = [*head(), layers.Dense(3, activation="softmax")]
    assert pruned(mark(sequential(start=start, end=end))) == ["pointwise"]


def test_every_output_is_pooled():
    model = functional(outputs=lambda x: [chain(head(), x), layers.Flatten()(x)])
    with pytest.raises(ValueError, match=f"every output passes.*model={model.name}"):
        mark(model)


def test_every_branch_is_checked():
    def branches(x):
        short = layers.MaxPooling2D(name="short")(x)
        pooled = layers.GlobalAveragePooling2D(keepdims=True, name="second")(short)
        return [chain(head(), x), pooled]

    with pytest.raises(ValueError, match="Received: layer 'short'"):
        mark(functional(outputs=branches))


@pytest.mark.parametrize(
    "combine",
    [lambda x, y: layers.Add()([x, y]), lambda x, y: x + y, lambda x, y: x * y],
    ids=["Add()", "+", "*"],
)
def test_residual_connections(combine):
    model = functional(lambda x: combine(x, chain(block()[:2], x)))
    assert pruned(mark(model)) == ["pointwise"]


@pytest.mark.parametrize(
    ("combine", "name"),
    [(lambda x, y: x - y, "subtract"), (lambda x, y: y + 1, "add")],
    ids=["-", "+ 1"],
)
def test_other_operations_are_named(combine, name):
    model = functional(lambda x: combine(x, chain(block()[:2], x)))
    with pytest.raises(ValueError, match=f"no channels-first kernel.*'{name}"):
        mark(model)


def test_nested_models():
    assert pruned(mark(nested(sequential()))) == ["pointwise"]
    assert pruned(mark(nested(functional()))) == ["pointwise"]
    assert pruned(mark(sequential(inner(layers.ReLU(), layers.Conv2D(8, 1, name="deep"))))) == [
        "pointwise",
        "deep",
    ]
    x = keras.Input(BLOCK_SHAPE)
    wide = keras.Model(x, layers.Add()([x, layers.Conv2D(8, 1, name="deep")(x)]))
    assert sorted(pruned(mark(functional(wide)))) == ["deep", "pointwise"]
    with pytest.raises(ValueError, match="Received: layer 'deep_pool'"):
        mark(sequential(inner(layers.ReLU(), layers.MaxPooling2D(name="deep_pool"))))


def test_padding_and_its_convolution_may_be_in_different_models():
    padding, *convolution = stem()
    start = [padding, inner(*convolution, shape=(18, 18, 3))]
    assert pruned(mark(sequential(start=start))) == ["pointwise"]
    padding = inner(layers.ZeroPadding2D(1))
    assert pruned(mark(sequential(padding, layers.DepthwiseConv2D(3, strides=2))))


def test_the_model_must_be_built():
    model = keras.Sequential([*stem(), *block(), *head()])
    with pytest.raises(ValueError, match=rf"`model.build\(input_shape\)`.*model={model.name}"):
        mark(model)
    model.build((None, 16, 16, 3))
    assert pruned(mark(model)) == ["pointwise"]


def test_subclassed_models_have_no_graph():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"Sequential and Functional models.*\(Subclassed\)"):
        mark(Subclassed())


def test_subclasses_of_functional_models_have_one():
    class Classifier(keras.Model):
        pass

    inputs = keras.Input((16, 16, 3))
    model = Classifier(inputs, chain([*stem(), *block(), *head()], inputs))
    assert pruned(mark(model)) == ["pointwise"]


def test_a_single_layer_has_no_graph_to_check():
    pointwise = layers.Conv2D(8, 1)
    pointwise.build((None, 8, 8, 3))
    assert pruned(mark(pointwise)) == [pointwise.name]
