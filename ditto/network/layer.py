"""What a layer is: fields, shape rule, meaning in PyTorch, emission into TensorRT, in one class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor

from ditto.network.spec import Spec
from ditto.network.weight import Weight


class Emitter(Protocol):
    """What a layer needs to emit itself: TensorRT's module, the network definition, and checked results."""

    trt: Any
    net: Any

    def made(self, layer: Any) -> Any:
        """`layer`, named after the Ditto layer being emitted.

        Raises:
            BuildError: TensorRT returned None; carries what TensorRT logged.
        """
        ...

    def dtype(self, dtype: torch.dtype) -> Any:
        """TensorRT's name of a dtype."""
        ...

    def number(self, value: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Any:
        """An ITensor filled with one number, for layers whose parameters are tensors."""
        ...

    def constant(self, weight: Weight) -> Any:
        """The ITensor of a weight: a constant of the engine, or an input of it where weights stay outside."""
        ...


@frozen
class Layer(ABC):
    """One layer, in TensorRT's own terms. Values go in and come out in a fixed order."""

    @abstractmethod
    def infer(self, *inputs: Any, **_: Any) -> Spec | tuple[Spec, ...]:
        """The spec of the output; a tuple for a layer with several.

        Raises:
            ShapeError: the inputs do not fit.
        """

    @abstractmethod
    def reference(self, *inputs: Any, **_: Any) -> Tensor | tuple[Tensor, ...]:
        """The output, computed by PyTorch; a tuple for a layer with several."""

    @abstractmethod
    def emit(self, to: Emitter, *inputs: Any, **_: Any) -> Any:
        """Add the layer to `to.net` and return its output ITensor; a tuple for a layer with several."""
