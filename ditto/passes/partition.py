"""Partition of a network into smaller networks and calls of them.

The blocks of a transformer are the same network with different weights. A block with external weights is compiled once
and run many times; blocks with embedded weights are compiled one by one, which needs the memory of one block only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

from attrs import evolve, frozen

from ditto.network.graph import Network, Node
from ditto.network.schedule import Call, Schedule
from ditto.passes.body import Body
from ditto.passes.external_weights import LEAST_BYTES, ExternalWeights, free_name
from ditto.passes.repeated_blocks import RepeatedBlock, find_repeated_block
from ditto.passes.segments import Segment, segment, segments_of


class PartitionMode(Enum):
    """How a network is partitioned.

    With blocks there are up to three networks: before the repeated blocks, one block, and after them. Layers that
    compute only KV cache outputs become one more network each. A network without repeated blocks stays one.
    """

    WHOLE = "whole"
    """A single network; weights are embedded."""

    SHARED_BLOCKS = "shared blocks"
    """One network for all blocks. Large weights, and constants that differ between blocks, are external."""

    EMBEDDED_BLOCKS = "embedded blocks"
    """One network for each block, with embedded weights."""


@frozen
class Partition:
    """A network partitioned into smaller ones.

    Args:
        networks: the smaller networks.
        schedule: the order in which they run.
        external: for each external weight, the constant of the whole network whose values are bound to it.
    """

    networks: tuple[Network, ...]
    schedule: Schedule
    external: dict[str, str]


def partition(network: Network, mode: PartitionMode, least_bytes: int = LEAST_BYTES) -> Partition:
    """Partition a network; it is not modified.

    Args:
        least_bytes: size from which a weight is external, for shared blocks.
    """
    if mode is PartitionMode.WHOLE:
        return Partition((network,), Schedule.once((*network.inputs, *network.outputs)), {})
    is_shared = mode is PartitionMode.SHARED_BLOCKS
    partitioner = Partitioner(network, least_bytes if is_shared else math.inf)
    blocks = partitioner.blocks()
    if not is_shared:
        blocks = [RepeatedBlock(first, block.period, 1) for block in blocks for first in block.firsts]
    return partitioner.partition(blocks)


class Partitioner:
    """Partitions one network.

    Args:
        least_bytes: size from which a weight is external even if it is the same in all blocks.
    """

    def __init__(self, network: Network, least_bytes: float) -> None:
        self._network, self._external = network, ExternalWeights(network, least_bytes)
        self._body = Body.of(network, self._external)

    def blocks(self) -> list[RepeatedBlock]:
        """The nodes before, in and after the repeated blocks; all nodes as one block if nothing repeats."""
        block, size = find_repeated_block(self._body), len(self._body.nodes)
        if block is None:
            return [RepeatedBlock(0, size, 1)]
        around = RepeatedBlock(0, block.start, 1), block, RepeatedBlock(block.stop, size - block.stop, 1)
        return [each for each in around if each.period]

    def partition(self, blocks: Sequence[RepeatedBlock]) -> Partition:
        """One or two networks for each group of repeated blocks, and their calls."""
        networks: list[Network] = []
        calls: list[Call] = []
        for block in blocks:
            whole = [segment(self._body, block, range(block.period))]
            segments = segments_of(self._body, block) if len(blocks) > 1 else whole
            described = [self._described(block, each) for each in segments]
            for of_block in zip(*(tensors for _, tensors in described), strict=True):
                numbered = enumerate(zip(segments, of_block, strict=True), len(networks))
                calls.extend(Call(number, tensors, each.is_concurrent) for number, (each, tensors) in numbered)
            networks.extend(network for network, _ in described)
        used = {name for call in calls for name in call.tensors.values()}
        between = {name: self._network.value(name).spec for name in self._body.index if name in used}
        external = {name: value for value, name in self._external.names.items()}
        return Partition(tuple(networks), Schedule(tuple(calls), between), external)

    def _described(self, block: RepeatedBlock, part: Segment) -> tuple[Network, list[dict[str, str]]]:
        """A segment of the first repeated block as a network, and the tensors bound to it in each block."""
        body = self._body
        network = Network(self._network.name, literals=self._network.literals)
        computed = {name for offset in part.offsets for name in body.nodes[block.start + offset].outputs}
        copied: list[Node] = []
        inputs: dict[tuple[str, ...], str] = {}

        def bound_name(names: tuple[str, ...]) -> str:
            """The name of a value in the segment's network; `names` are its names in all blocks."""
            first = names[0]
            if first in computed:
                return first
            if first in body.sizes or (first in body.constants and not self._is_external(names)):
                copy_in(first)
                return first
            if names not in inputs:
                whole = [
                    self._external.name(name) if name in body.constants else body.whole_name(name) for name in names
                ]
                inputs[names] = free_name(whole[0], network.inputs)
                network.input(inputs[names], self._network.value(first).spec)
                for tensors, name in zip(calls, whole):
                    tensors[inputs[names]] = name
            return inputs[names]

        def copy_in(name: str) -> None:
            node = body.constants.get(name) or body.sizes[name]
            if node not in copied:
                read = tuple(bound_name((each,) * block.count) for each in node.inputs)
                copied.append(evolve(node, inputs=read))

        calls: list[dict[str, str]] = [{} for _ in block.firsts]
        nodes: list[Node] = []
        for offset in part.offsets:
            alike = [body.nodes[first + offset].inputs for first in block.firsts]
            nodes.append(
                evolve(body.nodes[block.start + offset], inputs=tuple(bound_name(names) for names in zip(*alike)))
            )
        for node in (*copied, *nodes):
            network.append(node, tuple(self._network.value(name).spec for name in node.outputs))
        for offset, index in sorted(part.outputs):
            whole = [body.whole_name(body.nodes[first + offset].outputs[index]) for first in block.firsts]
            value = body.nodes[block.start + offset].outputs[index]
            network.output(whole[0], network.value(value), inputs.get(self._shared(whole)))
            for tensors, name in zip(calls, whole):
                tensors[whole[0]] = name
        return network, calls

    def _is_external(self, names: Sequence[str]) -> bool:
        """Whether a constant is an external weight; `names` are its names in all blocks."""
        differs = any(self._external.weight(name) != self._external.weight(names[0]) for name in names)
        return differs or self._external.should_be_external(names[0])

    def _shared(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """The inputs whose memory outputs use; the output's own name if it uses none."""
        return tuple(self._network.shared.get(name, name) for name in outputs)
