"""The operations of the engine: each is data, and knows how to become instructions."""

from keras_trim.inference.operations.base import OPERATIONS, Operation
from keras_trim.inference.operations.convolution import Convolution
from keras_trim.inference.operations.dense import Dense
from keras_trim.inference.operations.depthwise import DepthwiseConvolution
from keras_trim.inference.operations.elementwise import (
    Activation,
    Binary,
    Compare,
    Select,
    Softmax,
)
from keras_trim.inference.operations.joining import JoinTime, SplitTime
from keras_trim.inference.operations.normalization import (
    GroupNormalization,
    LayerNormalization,
    ScaleChannels,
)
from keras_trim.inference.operations.pooling import GlobalPool, Pool
from keras_trim.inference.operations.products import Attention, Einsum, Reduce
from keras_trim.inference.operations.recurrent import Recurrent
from keras_trim.inference.operations.resizing import Resize
from keras_trim.inference.operations.shaping import (
    Concatenate,
    Embedding,
    Reshape,
)
from keras_trim.inference.operations.strided import (
    Cast,
    Constant,
    Pad,
    Permute,
    Repeat,
    Slice,
    Tile,
)

__all__ = [
    "OPERATIONS",
    "Activation",
    "Attention",
    "Binary",
    "Cast",
    "Compare",
    "Concatenate",
    "Constant",
    "Convolution",
    "Dense",
    "DepthwiseConvolution",
    "Einsum",
    "Embedding",
    "GlobalPool",
    "GroupNormalization",
    "JoinTime",
    "LayerNormalization",
    "Operation",
    "Pad",
    "Permute",
    "Pool",
    "Recurrent",
    "Reduce",
    "Repeat",
    "Reshape",
    "Resize",
    "ScaleChannels",
    "Select",
    "Slice",
    "Softmax",
    "SplitTime",
    "Tile",
]
