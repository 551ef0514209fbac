"""The operations of a graph. Each is plain data, which `lowering` turns into instructions."""

from keras_trim.inference.ir.operations.base import OPERATIONS, Operation
from keras_trim.inference.ir.operations.contraction import Attention, Einsum, Reduce
from keras_trim.inference.ir.operations.convolution import Convolution
from keras_trim.inference.ir.operations.dense import Dense
from keras_trim.inference.ir.operations.depthwise import DepthwiseConvolution
from keras_trim.inference.ir.operations.elementwise import (
    Activation,
    Binary,
    Compare,
    Select,
    Softmax,
)
from keras_trim.inference.ir.operations.normalization import (
    GroupNormalization,
    LayerNormalization,
    ScaleChannels,
)
from keras_trim.inference.ir.operations.pooling import GlobalPool, Pool
from keras_trim.inference.ir.operations.recurrent import Recurrent
from keras_trim.inference.ir.operations.resizing import Resize
from keras_trim.inference.ir.operations.shaping import (
    Concatenate,
    Embedding,
    Reshape,
)
from keras_trim.inference.ir.operations.strided import (
    Cast,
    Constant,
    Pad,
    Permute,
    Repeat,
    Slice,
    Tile,
)
from keras_trim.inference.ir.operations.time_axis import JoinTime, SplitTime

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
