"""One layer, three witnesses: PyTorch's result, our shape rule, and TensorRT's own shape and type inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from ditto.bindings import load_native
from ditto.network import Layer, Network, Spec, symbol
from ditto.network.dims import evaluate
from ditto.reference import TOLERANCE, Constants, run
from ditto.targets.emit import Emission, Messages

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class NoTensors:
    """A source for networks that have no checkpoint."""

    def tensor(self, name: str) -> Tensor:
        raise AssertionError(f"{name} was asked for")


def emitted(network: Network, source: Any = None) -> Any:
    """A real `INetworkDefinition` of TensorRT-RTX with every layer of a network in it; emission itself compares
    TensorRT's shapes and dtypes with ours."""
    trt = load_native("tensorrt_rtx")
    messages = Messages(trt.module)
    builder = trt.module.Builder(messages.log)
    definition = builder.create_network(1 << int(trt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    emission = Emission(trt, definition, source or NoTensors(), messages)
    emission.emit(network)
    return _Kept(definition, builder, emission, messages)


class _Kept:
    """A definition together with what must outlive it."""

    def __init__(self, definition: Any, *owners: Any) -> None:
        self.definition = definition
        self._owners = owners


def network_of(layer: Layer, specs: Sequence[Spec]) -> Network:
    """A network of one layer."""
    network = Network("test")
    values = [network.input(f"input{index}", spec) for index, spec in enumerate(specs)]
    network.output("result", network.add(layer, *values))
    return network


def check_layer(layer: Layer, inputs: Sequence[Tensor], wanted: Tensor, dynamic: dict[int, str] | None = None) -> None:
    """Check a layer's meaning against `wanted`, its shape rule against the meaning, and both against TensorRT.

    Args:
        dynamic: axes of the first input to be named dimensions, tried in addition to static ones.
    """
    specs = [Spec.of(x) for x in inputs]
    network = network_of(layer, specs)
    given = {f"input{index}": x for index, x in enumerate(inputs)}
    found = run(network, given, Constants(network, NoTensors()))["result"]
    assert_close(found, wanted, **TOLERANCE[wanted.dtype])
    assert network.value(network.outputs["result"]).spec == Spec.of(wanted)
    emitted(network)
    if dynamic:
        first = specs[0]
        sizes = {name: int(first.shape[axis]) for axis, name in dynamic.items()}
        shape = tuple(symbol(dynamic[axis]) if axis in dynamic else dim for axis, dim in enumerate(first.shape))
        named = network_of(layer, [first.with_shape(shape), *specs[1:]])
        made = named.value(named.outputs["result"]).spec
        assert tuple(evaluate(dim, sizes) for dim in made.shape) == tuple(wanted.shape)
        emitted(named)
