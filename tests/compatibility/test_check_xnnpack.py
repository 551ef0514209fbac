"""What `check` reports. The rules about layers are tested through the policy that shares them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_trim


def model(*within, sparsity=0.8, channels=8):
    """Returns a model of the shape that XNNPACK runs sparsely, with pruned 1x1 convolutions."""
    built = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.ZeroPadding2D(1),
            layers.Conv2D(8, 3, strides=2, name="stem"),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.Conv2D(channels, 1, name="first"),
            *within,
            layers.Conv2D(8, 1, name="second"),
            layers.GlobalAveragePooling2D(keepdims=True, name="pool"),
            layers.Conv2D(4, 1, name="logits"),
        ]
    )
    for name in ("first", "second"):
        keras_trim.prune(built.get_layer(name), sparsity)
    return built


def rows(report):
    return {row.layer: row for row in report.rows}


def test_a_model_that_is_run_sparsely():
    report = keras_trim.check(model(), target="xnnpack")
    assert [row.layer for row in report.rows if row.is_sparse] == ["first", "second"]
    assert report
    assert report.obstacles == []
    assert report.summary == "2 of 5 weights are run sparsely by xnnpack"
    assert "1x1 Conv2D layers only" in rows(report)["stem"].rule
    assert "between the first convolution and" in rows(report)["logits"].rule
    assert any("x86" in note and "AVX" in note for note in report.notes)


def test_more_than_two_thirds_of_the_cluster_are_zero():
    # 8x8 weights each: the layer at 90 % compensates for the one at 50 %.
    built = model(sparsity=0.5)
    assert not keras_trim.check(built, "xnnpack")
    kernel = built.get_layer("second").kernel
    kernel.assign(np.eye(8).reshape(1, 1, 8, 8))  # 88 zeros of 128: 69 %
    assert keras_trim.check(built, "xnnpack")
    values = np.eye(8)
    values[0, 1:5] = 1  # 84 of 128: 65.6 %
    kernel.assign(values.reshape(1, 1, 8, 8))
    report = keras_trim.check(built, "xnnpack")
    assert report.num_sparse == 0
    assert "65.62% of the weights of all such layers are zero" in rows(report)["first"].rule
    assert rows(report)["second"].cure == "prune these layers further"


def test_exactly_two_thirds_are_too_few():
    built = model(channels=6)  # 48 weights each: 64 of 96 zero
    for name in ("first", "second"):
        kernel = built.get_layer(name).kernel
        values = np.zeros(48)
        values[:16] = 1
        kernel.assign(values.reshape(kernel.shape))
    assert keras_trim.check(built, "xnnpack").num_sparse == 0
    values[0] = 0
    kernel.assign(values.reshape(kernel.shape))
    assert keras_trim.check(built, "xnnpack").num_sparse == 2


def test_all_obstacles_are_named():
    built = model(layers.MaxPooling2D(name="max"), layers.Conv2D(8, 1, strides=2, name="strided"))
    report = keras_trim.check(built, "xnnpack")
    assert [obstacle.layer for obstacle in report.obstacles] == ["max", "strided"]
    assert report.num_sparse == 0
    assert not report
    assert rows(report)["first"].rule == "'max' is in the way, and 1 more (below)"
    assert "in the way: 'max' (MaxPooling2D): it has no channels-first kernel" in str(report)


def test_a_model_that_has_no_cluster():
    built = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(8, 1), layers.Flatten()])
    report = keras_trim.check(built, "xnnpack")
    assert "every input passes through a 3x3" in report.obstacles[0].rule
    assert report.obstacles[0].layer is None
    assert "the model" in report.rows[0].rule


def test_pruned_layers_that_cannot_profit():
    built = model()
    keras_trim.prune(built.get_layer("logits"), 0.8)
    report = keras_trim.check(built, "xnnpack")
    assert report.num_sparse == 2
    assert [row.layer for row in report.rows if row.is_wasted] == ["logits"]
    assert not report


def test_nested_models():
    inputs = keras.Input((16, 16, 3))
    outer = keras.Model(inputs, layers.Softmax()(model()(inputs)))
    assert keras_trim.check(outer, "xnnpack").num_sparse == 2


def test_subclassed_models():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    subclassed = Subclassed()
    with pytest.raises(ValueError, match="no weights yet"):
        keras_trim.check(subclassed, "xnnpack")
    subclassed(np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"takes Sequential and Functional models.*\(Subclassed\)"):
        keras_trim.check(subclassed, "xnnpack")
