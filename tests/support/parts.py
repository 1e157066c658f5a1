"""A network's parts, run by their calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from torch import Tensor

from ditto.network import Network, Spec, check
from ditto.network.layers import Constant
from ditto.network.weight import Weight
from ditto.passes.external_weights import LEAST_BYTES
from ditto.passes.partition import Partition, PartitionMode, partition
from ditto.reference import Constants, run

Divide = Callable[[Network], Partition]


def in_shared_blocks(network: Network, least_bytes: int = LEAST_BYTES) -> Partition:
    """All blocks as one network that takes its weights as inputs."""
    return partition(network, PartitionMode.SHARED_BLOCKS, least_bytes)


def in_embedded_blocks(network: Network) -> Partition:
    """Each block as a network with its weights."""
    return partition(network, PartitionMode.EMBEDDED_BLOCKS)


def as_a_whole(network: Network) -> Partition:
    """One network."""
    return partition(network, PartitionMode.WHOLE)


# Ways to divide a network, by where its weights are.
DIVISIONS: dict[str, Divide] = {
    "all outside": partial(in_shared_blocks, least_bytes=1),
    "outside": in_shared_blocks,
    "inside": in_embedded_blocks,
}

RunPart = Callable[[int, dict[str, Tensor]], dict[str, Tensor]]


def by_calls(parts: Partition, given: Mapping[str, Tensor], run_part: RunPart) -> dict[str, Tensor]:
    """All tensors of the whole network, of which its inputs and weights are given.

    A call says what each tensor of its part is, and of no other; what it makes is new, and what it hands on is as it is
    stated.

    Args:
        run_part: from the inputs of a part to its outputs.
    """
    tensors = dict(given)
    for call in parts.schedule.calls:
        part = parts.networks[call.part]
        assert set(call.tensors) == {*part.inputs, *part.outputs}
        made = run_part(call.part, {name: tensors[call.tensors[name]] for name in part.inputs})
        for name, tensor in made.items():
            whole = call.tensors[name]
            assert whole not in tensors, f"{whole} is made twice"
            if whole in parts.schedule.between:
                assert _fits(tensor, parts.schedule.between[whole])
            tensors[whole] = tensor
    return tensors


def _fits(tensor: Tensor, spec: Spec) -> bool:
    sizes = zip(tensor.shape, spec.shape, strict=True)
    return tensor.dtype == spec.dtype and all(size == dim for size, dim in sizes if isinstance(dim, int))


def weights_by_value(network: Network) -> dict[str, Weight]:
    """The weights of a network's constants, by the constants' names."""
    return {node.outputs[0]: node.layer.weight for node in network.nodes if isinstance(node.layer, Constant)}


def run_in_parts(
    network: Network,
    inputs: Mapping[str, Tensor],
    constants: Constants,
    shared: Collection[str] = (),
    *,
    divide: Divide = DIVISIONS["all outside"],
) -> dict[str, Tensor]:
    """What `ditto.reference.run` computes, by the calls of the network's parts; overwrites no shared memory."""
    del shared
    parts, stored = divide(network), weights_by_value(network)
    for part in parts.networks:
        check(part)
    weights = {name: constants[stored[value]] for name, value in parts.external.items()}
    made = by_calls(parts, {**inputs, **weights}, lambda part, given: run(parts.networks[part], given, constants))
    assert made.keys() - network.outputs.keys() == {*inputs, *weights, *parts.schedule.between}
    return {name: made[name] for name in network.outputs}
