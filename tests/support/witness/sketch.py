"""Networks made without Ditto, to try the witness on."""

from __future__ import annotations

from typing import Any

import tensorrt_rtx as trt
import torch
from torch import Tensor

from tests.support.witness.reading import DTYPES
from tests.support.witness.replay import replay

TYPES = {dtype: name for name, dtype in DTYPES.items()}


class Sketch:
    """A definition made directly with TensorRT's calls, and what to feed it."""

    def __init__(self) -> None:
        self.log = trt.Logger(trt.Logger.INTERNAL_ERROR)
        self.builder = trt.Builder(self.log)
        self.net = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.given: dict[str, Tensor] = {}
        self.kept: list[Tensor] = []  # TensorRT refers to the memory of weights
        self._seed = torch.Generator().manual_seed(0)

    def random(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self._seed).to(dtype)

    def input(self, tensor: Tensor, *dynamic: int) -> Any:
        name = f"input{len(self.given)}"
        self.given[name] = tensor
        shape = tuple(-1 if axis in dynamic else size for axis, size in enumerate(tensor.shape))
        return self.net.add_input(name, TYPES[tensor.dtype], shape)

    def inputs(self, *tensors: Tensor) -> list[Any]:
        return [self.input(tensor) for tensor in tensors]

    def constant(self, tensor: Tensor) -> Any:
        self.kept.append(tensor)
        weights = trt.Weights(TYPES[tensor.dtype], tensor.data_ptr(), tensor.numel())
        return self.net.add_constant(tuple(tensor.shape), weights).get_output(0)

    def size(self, tensor: Tensor) -> Any:
        """The size of a tensor, known only at run time."""
        return self.net.add_shape(self.input(tensor, *range(tensor.dim()))).get_output(0)

    def finish(self, made: Any) -> None:
        handle = made if isinstance(made, trt.ITensor) else made.get_output(0)
        handle.name = "result"
        self.net.mark_output(handle)

    def replayed(self) -> Tensor:
        return replay(self.net, self.given)["result"]
