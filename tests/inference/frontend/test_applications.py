"""The models of `keras.applications`, some of them, on small images.

KERAS_TRIM_APPLICATIONS=all runs all of them.
"""

import os

import keras
import pytest
from helpers import assert_same, numbers, randomize

# The first of a family, its smallest image, the others.
FAMILIES = {
    "MobileNet": (64, []),
    "MobileNetV2": (64, []),
    "MobileNetV3Small": (64, ["MobileNetV3Large"]),
    "EfficientNetB0": (64, [f"EfficientNetB{i}" for i in range(1, 8)]),
    "EfficientNetV2B0": (
        64,
        [f"EfficientNetV2{kind}" for kind in ("B1", "B2", "B3", "S", "M", "L")],
    ),
    "DenseNet121": (64, ["DenseNet169", "DenseNet201"]),
    "ResNet50": (64, ["ResNet101", "ResNet152"]),
    "ResNet50V2": (64, ["ResNet101V2", "ResNet152V2"]),
    "NASNetMobile": (64, ["NASNetLarge"]),
    "Xception": (72, []),
    "InceptionV3": (76, []),
    "InceptionResNetV2": (76, []),
    "VGG16": (32, ["VGG19"]),
    "ConvNeXtTiny": (64, [f"ConvNeXt{size}" for size in ("Small", "Base", "Large", "XLarge")]),
}
RUN_ALL = os.environ.get("KERAS_TRIM_APPLICATIONS") == "all"
BY_DEFAULT = ("MobileNetV3Small", "DenseNet121", "ResNet50V2", "ConvNeXtTiny")
CASES = {
    name: size
    for first, (size, others) in FAMILIES.items()
    for name in [first, *others]
    if RUN_ALL or name in BY_DEFAULT
}


@pytest.mark.skipif(
    keras.backend.backend() != "torch" and not RUN_ALL,
    reason="takes minutes, and the graphs that are read are the same on each backend",
)
@pytest.mark.parametrize("name", CASES)
def test_application(name):
    if name == "NASNetMobile" and keras.backend.backend() == "torch":
        pytest.skip("Keras refuses to build NASNetMobile on PyTorch")
    size = CASES[name]
    model = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    assert_same(randomize(model, 0.8), numbers(1, size, size, 3) * 100 + 127)
