"""Run a network in PyTorch, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from ditto.errors import ShapeError, at
from ditto.network import dims
from ditto.network.graph import Network
from ditto.network.layers import Constant, KVCacheUpdate
from ditto.network.spec import INT4, Spec
from ditto.network.weight import TensorSource, Weight, resolve

Watcher = Callable[[str, Tensor], None]

_watcher: ContextVar[Watcher | None] = ContextVar("ditto_watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Generator[None]:
    """Call `watcher` with the value name and tensor of every layer output of the networks run inside."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class Constants:
    """Cache of the values of a network's constants, each resolved once."""

    def __init__(self, network: Network, source: TensorSource, device: torch.device | str = "cpu") -> None:
        self._network, self._source, self._device = network, source, device
        self._kept: dict[Weight, Tensor] = {}

    def __getitem__(self, weight: Weight) -> Tensor:
        if weight not in self._kept:
            self._kept[weight] = _moved(resolve(weight, self._source, self._network.literals), self._device)
        return self._kept[weight]


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; torch copies no int4 tensors."""
    return tensor.view(torch.int8).to(device).view(INT4) if tensor.dtype == INT4 else tensor.to(device)


def run(
    network: Network, inputs: Mapping[str, Tensor], constants: Constants, shared: Collection[str] = ()
) -> dict[str, Tensor]:
    """Compute the outputs of a network.

    Args:
        inputs: a tensor for every input, matching its spec, on the device of the constants; they determine the sizes of
            named dimensions.
        shared: inputs whose memory may be that of an output, as in an engine: a KV cache is then not copied.
    Returns:
        The outputs, by name.
    Raises:
        ShapeError: an input is missing, unknown, or does not match its spec.
    """
    _check_inputs(network, inputs)
    watch = _watcher.get()
    values: dict[str, Tensor] = dict(inputs)
    uses = Counter(name for node in network.nodes for name in node.inputs)
    uses.update(network.outputs.values())
    # No other layer has, or has a view of, what they held; a watcher may keep it.
    in_place = {name for name in shared if uses[name] == 1} if watch is None else set[str]()
    with torch.no_grad():
        for node in network.nodes:
            with at(node.place):
                if isinstance(node.layer, Constant):
                    result = node.layer.reference(value=constants[node.layer.weight])
                elif isinstance(node.layer, KVCacheUpdate) and node.inputs[0] in in_place:
                    result = node.layer.overwrite(*(values[name] for name in node.inputs))
                else:
                    result = node.layer.reference(*(values[name] for name in node.inputs))
            for name, tensor in zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True):
                values[name] = tensor
                if watch is not None:
                    watch(name, tensor)
            for name in node.inputs:
                uses[name] -= 1
                if not uses[name]:
                    del values[name]
    return {name: values[value] for name, value in network.outputs.items()}


def _check_inputs(network: Network, inputs: Mapping[str, Tensor]) -> None:
    wrong = set(inputs) ^ set(network.inputs)
    if wrong:
        raise ShapeError(
            f"the network expects {', '.join(network.inputs)}; missing or unknown: {', '.join(sorted(wrong))}"
        )
    sizes: dict[str, int] = {}
    for name, spec in network.inputs.items():
        tensor = inputs[name]
        if tensor.dtype != spec.dtype or tensor.dim() != spec.rank:
            raise ShapeError(f"input {name} is {Spec.of(tensor)}, the network expects {spec}")
        for dim, size in zip(spec.shape, tensor.shape, strict=True):
            if isinstance(dim, dims.DimExpr) and len(dim.names) == 1 and str(dim).isidentifier():
                sizes.setdefault(str(dim), size)
    for name, spec in network.inputs.items():
        wanted = tuple(dims.evaluate(dim, sizes) for dim in spec.shape)
        if tuple(inputs[name].shape) != wanted:
            raise ShapeError(f"input {name} is {Spec.of(inputs[name])}, the others make it {spec.with_shape(wanted)}")
