"""Trains every layer of Keras under pruning: which of its weights are pruned, and which are not."""

import functools
import inspect
import warnings

import keras
import numpy as np
from conftest import values
from keras import layers, ops

import keras_trim

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
}
RECURRENT = "kernel recurrent_kernel"


class Scaled(layers.Wrapper):
    """A user's wrapper that also holds the kernel of its inner layer."""

    def build(self, input_shape=None):
        super().build(input_shape)
        self.kernel = self.layer.kernel
        self.gain = self.add_weight(shape=(1, self.layer.bias.shape[0]), initializer="ones")

    def call(self, x):
        return self.layer(x) * self.gain


class Experts(layers.Layer):
    """A stack of matrices without a name, as in mixtures of experts."""

    def build(self, input_shape):
        self.stack = self.add_weight(shape=(2, input_shape[-1], 4))

    def call(self, x):
        return ops.einsum("bi,eio->bo", x, self.stack)


def one_input(x, params):
    return ops.matmul(x, params)


# Class -> [(function that makes the layer, its input, names of the pruned weights)].
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
# Layers that have weights on only one backend, or none that a Keras optimizer trains.
ELSEWHERE = {
    "JaxLayer": "jax",
    "FlaxLayer": "jax, with the package flax",
    "TorchModuleWrapper": "torch",
    "TFSMLayer": "tensorflow, with variables of a SavedModel",
}
WITHOUT_WEIGHTS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AlphaDropout AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D
    CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization
    Cropping1D Cropping2D Cropping3D CutMix Discretization Dot Dropout ELU Equalization Flatten
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D HashedCrossing
    Hashing Identity InputLayer IntegerLookup Lambda LeakyReLU Masking MaxNumBoundingBoxes
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp Multiply Permute
    Pipeline RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast
    RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale
    RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape
    Resizing Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D StringLookup
    Subtract TextVectorization UnitNormalization UpSampling1D UpSampling2D
    UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""


def test_every_layer_of_keras_is_listed_here():
    without = set(WITHOUT_WEIGHTS.split())
    listed = {*WITH_WEIGHTS, *ELSEWHERE, *without}
    names = {}  # class -> its public names
    for name, value in vars(layers).items():
        if inspect.isclass(value) and issubclass(value, layers.Layer):
            names.setdefault(value, set()).add(name)
    new = [aliases for aliases in names.values() if not aliases & listed]
    assert not new, f"give these a row in WITH_WEIGHTS, or list them as without: {new}"
    for layer, aliases in names.items():
        if aliases & without and "build" in vars(layer):
            assert "add_weight" not in inspect.getsource(layer.build), f"{aliases} has weights"


def make_inputs():
    inputs = {kind: keras.Input(shape, name=kind) for kind, shape in SHAPES.items()}
    return inputs | {"ids": keras.Input((6,), dtype="int32", name="ids")}


def cases():
    """List of tuples (class, layer, its input, names of the pruned weights)."""
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
        if hasattr(layers, name):  # older versions of Keras have fewer layers
            for make, kind, pruned in entries:
                yield name, make(), kind, pruned


@functools.cache
def trained():
    """Returns a model of all layers side by side after two steps, and the list of its `cases`."""
    keras.utils.set_random_seed(0)
    inputs, outputs, built = make_inputs(), [], []
    for name, layer, kind, pruned in cases():
        x = inputs[kind]
        if name in ("MultiHeadAttention", "GroupQueryAttention"):
            y = layer(x, x)
        else:
            y = layer([x, x] if name.endswith("Attention") else x)
        flat = layers.Flatten()(y)
        outputs.append(layers.Lambda(ops.mean, arguments={"axis": 1, "keepdims": True})(flat))
        built.append((name, layer, pruned))
    model = keras.Model(inputs, layers.Add()(outputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras's layers are left out by design, never in doubt
        keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x = {
        tensor.name: rng.standard_normal((4, *tensor.shape[1:])).astype("float32")
        for tensor in inputs.values()
    }
    x["ids"] = rng.integers(0, 10, (4, 6))  # 0 is masked
    x["sequence"][:, 4:] = 0.0
    before = {variable.path: values(variable).copy() for variable in model.trainable_variables}
    model.fit(
        x, np.ones((4, 1)), batch_size=2, verbose=0, callbacks=[keras_trim.UpdatePruningStep()]
    )
    return model, built, before


def test_what_is_pruned_in_each_layer():
    _, built, _ = trained()
    wrong = {}
    for name, layer, expected in built:
        rows = keras_trim.sparsity_report(layer).rows if layer.variables else []
        pruned = [row for row in rows if row.reason is None]
        names = " ".join(row.path.rsplit("/", 1)[-1] for row in pruned)
        if BACKEND in ("jax", "torch") or name == "Layer":
            names = names.rstrip("_0123456789")
        if sorted(names.split()) != sorted(expected.split()):
            wrong[name] = names
        for row in pruned:
            if row.zeros < round(row.size * 0.5):
                wrong[name] = row
    assert not wrong


def test_what_is_left_out_keeps_its_weights_and_has_a_reason():
    model, _, before = trained()
    rows = [row for row in keras_trim.sparsity_report(model).rows if row.reason is not None]
    assert all(len(row.reason) > 10 for row in rows)
    trained_rows = [row for row in rows if row.path in before and (before[row.path] != 0).all()]
    assert len(trained_rows) > 10
    assert not [row for row in trained_rows if row.zeros]
