"""Base class of layers: fields, shape inference, reference in PyTorch, and emission into TensorRT."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor

from ditto.network.spec import Spec
from ditto.network.weight import Weight


class Emitter(Protocol):
    """Interface to TensorRT for emitting layers: its module, the network definition, checked results."""

    trt: Any
    net: Any

    def made(self, layer: Any) -> Any:
        """Name a TensorRT layer after the Ditto layer that is being emitted, and return it.

        Raises:
            BuildError: TensorRT returned None; the error contains TensorRT's log messages.
        """
        ...

    def dtype(self, dtype: torch.dtype) -> Any:
        """TensorRT's equivalent of a dtype."""
        ...

    def values(self, tensor: Tensor) -> Any:
        """An ITensor with the values of a tensor, for layers that need constants of their own."""
        ...

    def number(self, value: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Any:
        """An ITensor filled with one value, for layers whose parameters are tensors."""
        ...

    def constant(self, weight: Weight) -> Any:
        """The ITensor of a weight: a constant of the engine, or an engine input if weights are external."""
        ...


@frozen
class Layer(ABC):
    """A layer with TensorRT's parameters. Inputs and outputs have a fixed order."""

    @abstractmethod
    def infer(self, *inputs: Any, **_: Any) -> Spec | tuple[Spec, ...]:
        """Infer the spec of the output; a tuple for a layer with several outputs.

        Raises:
            ShapeError: the inputs do not fit.
        """

    @abstractmethod
    def reference(self, *inputs: Any, **_: Any) -> Tensor | tuple[Tensor, ...]:
        """Compute the output in PyTorch; a tuple for a layer with several outputs."""

    @abstractmethod
    def emit(self, to: Emitter, *inputs: Any, **_: Any) -> Any:
        """Add the layer to `to.net` and return its output ITensor; a tuple for a layer with several outputs."""
