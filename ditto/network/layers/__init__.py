"""The layer classes, one for each TensorRT layer."""

from ditto.network.layers.attention import Attention, KVCacheUpdate, RotaryEmbedding
from ditto.network.layers.chunked import ChunkedRecurrence
from ditto.network.layers.constant import Constant, Identity
from ditto.network.layers.convolution import Convolution
from ditto.network.layers.elementwise import Activation, Cast, ElementWise, Select, Unary
from ditto.network.layers.gather import Gather, GatherElements
from ditto.network.layers.matmul import MatrixMultiply
from ditto.network.layers.norm import Normalization
from ditto.network.layers.quantization import Dequantize
from ditto.network.layers.recurrence import LinearRecurrence
from ditto.network.layers.reduce import Reduce, Softmax, TopK
from ditto.network.layers.shape import Concatenation, Fill, Shape, Shuffle, Slice

__all__ = [
    "Activation",
    "Attention",
    "Cast",
    "ChunkedRecurrence",
    "Concatenation",
    "Constant",
    "Convolution",
    "Dequantize",
    "ElementWise",
    "Fill",
    "Gather",
    "GatherElements",
    "Identity",
    "KVCacheUpdate",
    "LinearRecurrence",
    "MatrixMultiply",
    "Normalization",
    "Reduce",
    "RotaryEmbedding",
    "Select",
    "Shape",
    "Shuffle",
    "Slice",
    "Softmax",
    "TopK",
    "Unary",
]
