"""Makes each layer that Keras has, and names the input that it takes.

`test_every_layer.py` checks that no class is missing here.
"""

import functools

import keras
import numpy as np
from keras import layers, ops

BACKEND = keras.backend.backend()
SHAPES = {
    "vector": (8,),
    "sequence": (6, 8),
    "image": (8, 8, 4),
    "volume": (4, 4, 4, 4),
    "images": (3, 4, 4, 4),
    "sequence_of_images": (2, 4, 4, 4),
    "sequence_of_volumes": (2, 2, 4, 4, 4),
    "sequence_of_vectors": (4, 6, 4),
    "waveform": (64, 1),
    "picture": (16, 16, 3),
    "sound": (64,),
}
RECURRENT = "kernel recurrent_kernel"


class Scaled(layers.Wrapper):
    """A wrapper as a user writes it, which holds the kernel of its layer as well."""

    def build(self, input_shape=None):
        super().build(input_shape)
        self.kernel = self.layer.kernel
        self.gain = self.add_weight(shape=(1, self.layer.bias.shape[0]), initializer="ones")

    def call(self, x):
        return self.layer(x) * self.gain


class Experts(layers.Layer):
    """A stack of matrices without a name, as mixtures of experts have it."""

    def build(self, input_shape):
        self.stack = self.add_weight(shape=(2, input_shape[-1], 4))

    def call(self, x):
        return ops.einsum("bi,eio->bo", x, self.stack)


def one_input(x, params):
    return ops.matmul(x, params)


# Class -> [(what makes the layer, its input, names of the weights that are pruned)].
WITH_WEIGHTS = {
    "AdditiveAttention": [(lambda: layers.AdditiveAttention(), "sequence", "")],
    "Attention": [
        (lambda: layers.Attention(use_scale=True, score_mode="concat"), "sequence", ""),
    ],
    "BatchNormalization": [(lambda: layers.BatchNormalization(), "image", "")],
    "Bidirectional": [
        (lambda: layers.Bidirectional(layers.GRU(4)), "sequence", f"{RECURRENT} {RECURRENT}"),
    ],
    "Conv1D": [(lambda: layers.Conv1D(4, 3), "sequence", "kernel")],
    "Conv1DTranspose": [(lambda: layers.Conv1DTranspose(4, 3), "sequence", "kernel")],
    "Conv2D": [
        (lambda: layers.Conv2D(4, 3), "image", "kernel"),
        (lambda: layers.Conv2D(8, 3, groups=2), "image", "kernel"),
        (lambda: layers.Conv2D(8, 3, groups=4), "image", ""),  # depthwise by another name
    ],
    "Conv2DTranspose": [(lambda: layers.Conv2DTranspose(6, 3), "image", "kernel")],
    "Conv3D": [(lambda: layers.Conv3D(4, 2), "volume", "kernel")],
    "Conv3DTranspose": [(lambda: layers.Conv3DTranspose(4, 2), "volume", "kernel")],
    "ConvLSTM1D": [(lambda: layers.ConvLSTM1D(2, 2), "sequence_of_vectors", RECURRENT)],
    "ConvLSTM2D": [(lambda: layers.ConvLSTM2D(2, 2), "sequence_of_images", RECURRENT)],
    "ConvLSTM3D": [(lambda: layers.ConvLSTM3D(2, 2), "sequence_of_volumes", RECURRENT)],
    "Dense": [(lambda: layers.Dense(4), "vector", "kernel")],
    "DepthwiseConv1D": [(lambda: layers.DepthwiseConv1D(3), "sequence", "")],
    "DepthwiseConv2D": [(lambda: layers.DepthwiseConv2D(3), "image", "")],
    "EinsumDense": [
        (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de"), "sequence",
         "kernel"),
    ],
    "Embedding": [
        (lambda: layers.Embedding(10, 4), "ids", "embeddings"),
        (lambda: keras.Sequential([layers.Embedding(10, 4, mask_zero=True), layers.LSTM(4)]),
         "ids", f"embeddings {RECURRENT}"),
    ],
    "GRU": [
        (lambda: layers.GRU(4), "sequence", RECURRENT),
        (lambda: keras.Sequential([layers.Masking(), layers.GRU(4)]), "sequence", RECURRENT),
    ],
    "GRUCell": [(lambda: layers.RNN(layers.GRUCell(4)), "sequence", RECURRENT)],
    "GroupNormalization": [(lambda: layers.GroupNormalization(2), "image", "")],
    "GroupQueryAttention": [
        (lambda: layers.GroupQueryAttention(4, 2, 1), "sequence", "kernel kernel kernel kernel"),
    ],
    "LSTM": [(lambda: layers.LSTM(4), "sequence", RECURRENT)],
    "LSTMCell": [(lambda: layers.RNN(layers.LSTMCell(4)), "sequence", RECURRENT)],
    "Layer": [(lambda: Experts(), "vector", "variable")],
    "LayerNormalization": [(lambda: layers.LayerNormalization(axis=(1, 2)), "sequence", "")],
    "MultiHeadAttention": [
        (lambda: layers.MultiHeadAttention(2, 4), "sequence", "kernel kernel kernel kernel"),
    ],
    "Normalization": [(lambda: layers.Normalization(), "vector", "")],
    "PReLU": [(lambda: layers.PReLU(), "image", "")],
    "RMSNormalization": [(lambda: layers.RMSNormalization(), "vector", "")],
    "RNN": [(lambda: layers.RNN([layers.LSTMCell(4), layers.LSTMCell(2)]), "sequence",
             f"{RECURRENT} {RECURRENT}")],
    "ReversibleEmbedding": [
        (lambda: layers.ReversibleEmbedding(10, 4), "ids", "embeddings"),
    ],
    "STFTSpectrogram": [(lambda: layers.STFTSpectrogram(
        frame_length=16, frame_step=8, fft_length=16), "waveform", "")],
    "SeparableConv1D": [(lambda: layers.SeparableConv1D(4, 3), "sequence", "pointwise_kernel")],
    "SeparableConv2D": [(lambda: layers.SeparableConv2D(4, 3), "image", "pointwise_kernel")],
    "SimpleRNN": [(lambda: layers.SimpleRNN(4), "sequence", RECURRENT)],
    "SimpleRNNCell": [(lambda: layers.RNN(layers.SimpleRNNCell(4)), "sequence", RECURRENT)],
    "SpectralNormalization": [
        (lambda: layers.SpectralNormalization(layers.Dense(4)), "vector", "kernel"),
        (lambda: layers.SpectralNormalization(layers.DepthwiseConv2D(3)), "image", ""),
    ],
    "StackedRNNCells": [
        (lambda: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(4), layers.LSTMCell(2)])),
         "sequence", f"{RECURRENT} {RECURRENT}"),
    ],
    "TimeDistributed": [(lambda: layers.TimeDistributed(layers.Dense(4)), "sequence", "kernel")],
    "Wrapper": [
        (lambda: Scaled(layers.Dense(4)), "vector", "kernel"),
        (lambda: Scaled(layers.Conv2DTranspose(6, 3)), "image", "kernel"),
    ],
}  # fmt: skip
# With weights on one backend, or none that an optimizer of Keras trains.
ELSEWHERE = {
    "JaxLayer": "jax",
    "FlaxLayer": "jax, with the package flax",
    "TorchModuleWrapper": "torch",
    "TFSMLayer": "tensorflow, with variables of a SavedModel",
}
# Class -> (its input, its arguments). Of layers that several inputs go to, the input twice.
_PICTURES = {
    "AugMix": (),
    "AutoContrast": (),
    "CenterCrop": (8, 6),
    "ContrastLimitedAdaptiveHistogramEqualization": (),
    "CutMix": (),
    "Equalization": (),
    "MixUp": (),
    "Pipeline": ([layers.Rescaling(0.5), layers.CenterCrop(8, 8)],),
    "RandAugment": (),
    "RandomBrightness": (0.2,),
    "RandomColorDegeneration": (0.2,),
    "RandomColorJitter": (),
    "RandomContrast": (0.2,),
    "RandomCrop": (8, 8),
    "RandomElasticTransform": (),
    "RandomErasing": (),
    "RandomFlip": (),
    "RandomGaussianBlur": (),
    "RandomGrayscale": (),
    "RandomHue": (0.2,),
    "RandomInvert": (),
    "RandomPerspective": (),
    "RandomPosterization": (4,),
    "RandomRotation": (0.2,),
    "RandomSaturation": (0.2,),
    "RandomSharpness": (0.2,),
    "RandomShear": (0.2, 0.2),
    "RandomTranslation": (0.2, 0.2),
    "RandomZoom": (0.2,),
    "Rescaling": (1 / 255, 0.5),
    "Resizing": (10, 12),
    "Solarization": (),
}
_SEQUENCES = {
    "AdaptiveAveragePooling1D": (3,),
    "AdaptiveMaxPooling1D": (3,),
    "AveragePooling1D": (2,),
    "Cropping1D": (1,),
    "GlobalAveragePooling1D": (),
    "GlobalMaxPooling1D": (),
    "Masking": (),
    "MaxNumBoundingBoxes": (3,),
    "MaxPooling1D": (2,),
    "Permute": ((2, 1),),
    "SpatialDropout1D": (0.5,),
    "UpSampling1D": (2,),
    "ZeroPadding1D": (1,),
}
_IMAGES = {
    "AdaptiveAveragePooling2D": (3,),
    "AdaptiveMaxPooling2D": (3,),
    "AveragePooling2D": (2,),
    "Cropping2D": (1,),
    "Flatten": (),
    "GlobalAveragePooling2D": (),
    "GlobalMaxPooling2D": (),
    "MaxPooling2D": (2,),
    "SpatialDropout2D": (0.5,),
    "UpSampling2D": (2,),
    "ZeroPadding2D": (1,),
}
_VOLUMES = {
    "AdaptiveAveragePooling3D": (2,),
    "AdaptiveMaxPooling3D": (2,),
    "AveragePooling3D": (2,),
    "Cropping3D": (1,),
    "GlobalAveragePooling3D": (),
    "GlobalMaxPooling3D": (),
    "MaxPooling3D": (2,),
    "SpatialDropout3D": (0.5,),
    "UpSampling3D": (2,),
    "ZeroPadding3D": (1,),
}
_VECTORS = {
    "Activation": ("gelu",),
    "ActivityRegularization": (),
    "AlphaDropout": (0.5,),
    "Discretization": ([-0.5, 0.5],),
    "Dropout": (0.5,),
    "ELU": (),
    "GaussianDropout": (0.5,),
    "GaussianNoise": (0.5,),
    "Identity": (),
    "Lambda": (ops.tanh,),
    "LeakyReLU": (),
    "ReLU": (6.0,),
    "RepeatVector": (3,),
    "Reshape": ((2, 4),),
    "Softmax": (),
    "UnitNormalization": (),
}
_PAIRS = {
    "Add": (),
    "Average": (),
    "Concatenate": (),
    "Dot": (1,),
    "Maximum": (),
    "Minimum": (),
    "Multiply": (),
    "Subtract": (),
}
_IDS = {
    "CategoryEncoding": (10,),
    "Hashing": (5,),
    "IntegerLookup": (None, 1, None, -1, [3, 5, 7]),
}
_ARGUMENTS = {
    "picture": _PICTURES,
    "sequence": _SEQUENCES,
    "image": _IMAGES,
    "volume": _VOLUMES,
    "vector": _VECTORS | _PAIRS,
    "ids": _IDS,
    "sound": {"MelSpectrogram": (32, 16)},
    "id": {"HashedCrossing": (5,)},
    "text": {
        "StringLookup": (None, 1, None, "[UNK]", ["a", "b"]),
        "TextVectorization": (),
    },
}
NO_LAYERS = {"InputLayer"}  # an input is no layer to call
WITHOUT_WEIGHTS = {name for named in _ARGUMENTS.values() for name in named} | NO_LAYERS


def make_inputs():
    """Dict: kind -> `keras.Input`."""
    inputs = {kind: keras.Input(shape, name=kind) for kind, shape in SHAPES.items()}
    return inputs | {"ids": keras.Input((6,), dtype="int32", name="ids")}


def make_input(kind):
    """A `keras.Input` of a name that no other has."""
    if kind in ("id", "ids"):
        return keras.Input((1 if kind == "id" else 6,), dtype="int32")
    return keras.Input((1,), dtype="string") if kind == "text" else keras.Input(SHAPES[kind])


def layers_with_weights():
    """List of tuples (class, layer, its input, names of the weights that are pruned)."""
    table = dict(WITH_WEIGHTS)
    if BACKEND == "torch":
        import torch

        table["TorchModuleWrapper"] = [
            (lambda: layers.TorchModuleWrapper(torch.nn.Linear(8, 4), output_shape=(None, 4)),
             "vector", "variable"),
        ]  # fmt: skip
    if BACKEND == "jax":
        table["JaxLayer"] = [
            (lambda: layers.JaxLayer(
                lambda params, inputs: inputs @ params["kernel"],
                params={"kernel": np.eye(8, 4, dtype="float32") + 0.1}), "vector", "variable"),
        ]  # fmt: skip
    for name, entries in table.items():
        if hasattr(layers, name):  # an older Keras has fewer
            for make, kind, pruned in entries:
                yield name, make(), kind, pruned


def layers_without_weights():
    """List of tuples (class, function that makes the layer, kind of its input)."""
    for kind, named in _ARGUMENTS.items():
        for name, arguments in named.items():
            if hasattr(layers, name):
                yield name, functools.partial(getattr(layers, name), *arguments), kind


def call(name, layer, x):
    """What a layer gives for an input, which it may take several times."""
    if name in ("MultiHeadAttention", "GroupQueryAttention"):
        return layer(x, x)
    return layer(
        [x, x] if name.endswith("Attention") or name in _PAIRS or name == "HashedCrossing" else x
    )
