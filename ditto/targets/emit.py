"""Emission of a network into TensorRT's `INetworkDefinition`."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from ditto.bindings import TensorRT
from ditto.errors import BuildError, at
from ditto.garbage import without_collection
from ditto.network.check import check
from ditto.network.dims import DimExpr, symbol
from ditto.network.graph import Network, Node
from ditto.network.packing import packed_nibbles
from ditto.network.spec import INT4
from ditto.network.weight import Room, TensorSource, Weight, resolve

_DTYPES = {
    torch.float32: "FLOAT",
    torch.float16: "HALF",
    torch.bfloat16: "BF16",
    torch.int64: "INT64",
    torch.int32: "INT32",
    torch.int8: "INT8",
    INT4: "INT4",
    torch.bool: "BOOL",
}


class Messages:
    """TensorRT's messages: errors are stored for error messages, all are logged."""

    def __init__(self, trt: Any) -> None:
        severity = trt.ILogger.Severity
        levels = {severity.INTERNAL_ERROR: "ERROR", severity.ERROR: "ERROR", severity.WARNING: "WARNING"}
        errors: list[str] = []

        class Log(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                level = levels.get(severity, "DEBUG")
                if level == "ERROR":
                    errors.append(message)
                # Other messages are thousands of lines per build.
                logger.log("DEBUG" if severity in levels else "TRACE", "TensorRT {}: {}", level.lower(), message)

        self.log = Log()
        self.errors = errors

    def last(self) -> str:
        """The last error, without TensorRT's source position.

        Errors about a missing GPU driver are ignored, as the builder does not need one.
        """
        errors = [message for message in self.errors if "Cuda Runtime" not in message]
        return re.sub(r"\s*\bIn \w+ at /\S+", "", errors[-1]).strip() if errors else "it gave no reason"


class Emission:
    """Emission context that layers use to add themselves to a TensorRT network.

    Args:
        trt: the library.
        definition: an empty `INetworkDefinition`.
        source: source of the checkpoint tensors.
        messages: messages of the builder's logger.
        room: allocates memory for computed constants; None for new tensors.
    """

    def __init__(
        self, trt: TensorRT, definition: Any, source: TensorSource, messages: Messages, room: Room | None = None
    ) -> None:
        self.trt = trt.module
        self.net = definition
        self._source = source
        self._messages = messages
        self._room = room
        self._kept: list[Tensor] = []  # keeps constants alive: TensorRT reads their memory during the build
        self._network: Network | None = None
        self._node: Node | None = None
        self._made = 0

    def emit(self, network: Network) -> None:
        """Add every input, layer and output of a checked network.

        Raises:
            BuildError: TensorRT rejects a layer; the message is TensorRT's, the place is in the user's model.
        """
        check(network)
        with without_collection():
            self._emit(network)

    def _emit(self, network: Network) -> None:
        self._network = network
        tensors: dict[str, Any] = {}
        for name, spec in network.inputs.items():
            shape = tuple(-1 if isinstance(dim, DimExpr) else dim for dim in spec.shape)
            tensor = tensors[name] = self._not_none(self.net.add_input(name, self.dtype(spec.dtype), shape))
            for axis, dim in enumerate(spec.shape):
                if isinstance(dim, DimExpr) and dim == symbol(str(dim)):
                    tensor.set_dimension_name(axis, str(dim))
        for node in network.nodes:
            self._node, self._made = node, 0
            with at(node.place):
                emitted = node.layer.emit(self, *(tensors[name] for name in node.inputs))
                for name, tensor in zip(
                    node.outputs, emitted if isinstance(emitted, tuple) else (emitted,), strict=True
                ):
                    tensor.name = name
                    tensors[name] = tensor
                    self._check_against_tensorrt(name, tensor)
        for name, value in network.outputs.items():
            tensors[value].name = name
            self.net.mark_output(tensors[value])

    def dtype(self, dtype: torch.dtype) -> Any:
        """TensorRT's `DataType` of a torch dtype."""
        return getattr(self.trt.DataType, _DTYPES[dtype])

    def made(self, layer: Any) -> Any:
        """Name a new TensorRT layer and return it.

        Raises:
            BuildError: TensorRT returned None.
        """
        assert self._node is not None
        name = self._node.outputs[0]
        self._not_none(layer).name = name if not self._made else f"{name}#{self._made}"
        self._made += 1
        return layer

    def constant(self, weight: Weight) -> Any:
        """Add a weight as a constant; a computed one is stored in `room`.

        It is joined here: of constants that TensorRT joins, it keeps a copy per profile to the end of the build.
        """
        assert self._network is not None
        if weight.dtype != INT4:
            return self._constant(resolve(weight, self._source, self._network.literals, self._room))
        packed = packed_nibbles(resolve(weight, self._source, self._network.literals))
        if self._room is not None:
            packed = self._room(tuple(packed.shape), packed.dtype).copy_(packed)
        return self._constant(packed, weight)

    def values(self, tensor: Tensor) -> Any:
        """Add a tensor as a constant."""
        return self._constant(tensor)

    def number(self, value: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Any:
        """Add a constant filled with one value."""
        return self._constant(torch.full(shape, value, dtype=dtype))

    def _constant(self, tensor: Tensor, packed: Weight | None = None) -> Any:
        """Add a tensor as a constant.

        Args:
            packed: the weight whose values the tensor holds in TensorRT's form; None if it holds its own values.
        """
        self._kept.append(tensor)
        shape, dtype = (tuple(tensor.shape), tensor.dtype) if packed is None else (packed.shape, packed.dtype)
        weights = self.trt.Weights(self.dtype(dtype), tensor.data_ptr(), math.prod(shape))
        return self.made(self.net.add_constant(shape, weights)).get_output(0)

    def _not_none(self, added: Any) -> Any:
        if added is None:
            what = type(self._node.layer).__name__ if self._node else "an input"
            raise BuildError(f"TensorRT refuses {what}: {self._messages.last()}")
        return added

    def _check_against_tensorrt(self, name: str, tensor: Any) -> None:
        """Check the shape and dtype that Ditto inferred against TensorRT's."""
        assert self._network is not None
        spec = self._network.value(name).spec
        wanted = tuple(-1 if isinstance(dim, DimExpr) else dim for dim in spec.shape)
        try:
            found = tuple(tensor.shape)
        except (RuntimeError, ValueError) as error:
            raise BuildError(f"TensorRT cannot infer the shape of {name}: {self._messages.last()}") from error
        fits = len(found) == len(wanted) and all(
            have == want or have == -1 for have, want in zip(found, wanted, strict=True)
        )
        if not fits or tensor.dtype != self.dtype(spec.dtype):
            raise BuildError(
                f"TensorRT makes {name} {tensor.dtype} {found}, Ditto expects {spec}: {self._messages.last()}",
                remedy="this is a fault of Ditto's description of that layer: please report it",
            )
