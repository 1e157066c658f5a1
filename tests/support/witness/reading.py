"""One layer as TensorRT's API shows it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
import tensorrt_rtx as trt
import torch
from torch import Tensor

DTYPES: Mapping[Any, torch.dtype] = {
    trt.DataType.FLOAT: torch.float32,
    trt.DataType.HALF: torch.float16,
    trt.DataType.BF16: torch.bfloat16,
    trt.DataType.INT64: torch.int64,
    trt.DataType.INT32: torch.int32,
    trt.DataType.INT8: torch.int8,
    trt.DataType.INT4: torch.int4,
    trt.DataType.BOOL: torch.bool,
}


class WitnessError(AssertionError):
    """The definition contradicts itself, or holds something whose meaning the witness does not know."""


class Reading:
    """A layer, or the `IAttention` between two layers, as its rule sees it.

    A rule has to look at everything: a property or an input that it has left unread when it is done is an error.

    Args:
        thing: the object of TensorRT, already of its own class.
        inputs: indices of the inputs that are set.
        values: all tensors computed so far, by TensorRT's names.
    """

    # Names, and what the replay itself looks at.
    _NEUTRAL = frozenset({"name", "metadata", "num_inputs", "num_outputs"})

    def __init__(self, thing: Any, inputs: Iterable[int], values: Mapping[str, Tensor]) -> None:
        self.thing, self.values = thing, values
        self._inputs = frozenset(inputs)
        classes = [cls for cls in type(thing).__mro__ if cls is not trt.ILayer]
        properties = {name for cls in classes for name, member in vars(cls).items() if isinstance(member, property)}
        self._unread = (properties - self._NEUTRAL) | {f"input {index}" for index in self._inputs}

    def get(self, name: str) -> Any:
        """A property."""
        self._unread.discard(name)
        return getattr(self.thing, name)

    def expect(self, name: str, wanted: Any) -> None:
        """Refuse any other value of a property."""
        found = self.get(name)
        if found != wanted:
            self.fail(f"{name} is {found}, the witness knows only {wanted}")

    def without_meaning(self, *names: str) -> None:
        """Properties on which, says TensorRT's documentation, the numbers do not depend here."""
        self._unread.difference_update(names)

    def tensor(self, handle: Any) -> Tensor:
        """What was computed for an ITensor."""
        return self.values[handle.name]

    def optional(self, index: int) -> Tensor | None:
        """An input, or None where it is not set."""
        self._unread.discard(f"input {index}")
        return self.tensor(self.thing.get_input(index)) if index in self._inputs else None

    def input(self, index: int) -> Tensor:
        """An input."""
        found = self.optional(index)
        return self.fail(f"has no input {index}") if found is None else found

    def alike(self, *tensors: Tensor | None, rank: bool = False) -> None:
        """Refuse tensors of several dtypes, or ranks: PyTorch would promote and broadcast, TensorRT does not."""
        given = [tensor for tensor in tensors if tensor is not None]
        if len({tensor.dtype for tensor in given}) > 1 or (rank and len({tensor.dim() for tensor in given}) > 1):
            self.fail(f"joins {', '.join(f'{tensor.dtype}{list(tensor.shape)}' for tensor in given)}")

    def within(self, places: Tensor, size: int) -> None:
        """Refuse indices outside 0 to size - 1: TensorRT leaves their meaning open."""
        if places.numel() and (int(places.min()) < 0 or int(places.max()) >= size):
            self.fail(f"takes {int(places.min())} to {int(places.max())} out of {size}")

    def finish(self) -> None:
        """Refuse a layer of which something was not looked at."""
        if self._unread:
            self.fail(f"has what the witness has not read: {', '.join(sorted(self._unread))}")

    def fail(self, message: str) -> NoReturn:
        """Refuse the layer."""
        raise WitnessError(f"{type(self.thing).__name__} {self.thing.name!r}: {message}")


def axes_of(mask: int) -> tuple[int, ...]:
    """The axes of a bit mask."""
    return tuple(axis for axis in range(mask.bit_length()) if mask >> axis & 1)


def wide(x: Tensor) -> Tensor:
    """Half precision as float32: sums are kept in float32 and rounded once."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class _Weights(ctypes.Structure):
    """nvinfer1::Weights of NvInferRuntimeBase.h."""

    _fields_ = [("type", ctypes.c_int32), ("values", ctypes.c_void_p), ("count", ctypes.c_int64)]


def numbers(weights: Any) -> Tensor:
    """Weights as a flat tensor, copied.

    TensorRT's bindings hand out a numpy array wherever numpy has the dtype: float32, float16, int64, int32, int8,
    bool. numpy has no bfloat16; then the property is a `trt.Weights`, which shows dtype, size and nbytes but not the
    address. pybind11 keeps the pointer to the C++ object right behind the PyObject header; dtype and size, which the
    API does show, prove that it was found. int4 lies in pairs, the first in the lower half of a byte; it is returned as
    one value per byte.
    """
    if isinstance(weights, np.ndarray):
        return torch.from_numpy(weights.copy())
    is_int4 = weights.dtype == trt.DataType.INT4
    if weights.dtype != trt.DataType.BF16 and not is_int4:
        raise WitnessError(f"weights of dtype {weights.dtype} are not known to the witness")
    behind_header = ctypes.c_void_p.from_address(id(weights) + object.__basicsize__)
    found = _Weights.from_address(behind_header.value or 0)
    size = weights.size // 2 if is_int4 else 2 * weights.size
    has_size = is_int4 or weights.nbytes == size  # of int4 the property is not a size
    if (found.type, found.count) != (int(weights.dtype), weights.size) or not has_size:
        raise WitnessError("weights do not lie where pybind11 kept them so far")
    if is_int4:
        pairs = torch.frombuffer(bytearray(ctypes.string_at(found.values, size)), dtype=torch.int8)
        low, high = (pairs << 4) >> 4, pairs >> 4  # the sign is in the highest bit of each half
        return torch.stack((low, high), -1).flatten().view(torch.int4)
    if not weights.size:
        return torch.empty(0, dtype=torch.bfloat16)
    return torch.frombuffer(bytearray(ctypes.string_at(found.values, weights.nbytes)), dtype=torch.bfloat16)
