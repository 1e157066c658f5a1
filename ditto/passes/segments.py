"""Segments: the parts of a block that become one network each.

Layers that compute only KV cache outputs, which prefill does not read, are a segment of their own, which may run
concurrently with the following blocks. 1 to 2 % faster prefill on H200, see benchmarks/NOTES.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ditto.network.layers import Shuffle, Slice
from ditto.passes.body import Body
from ditto.passes.repeated_blocks import RepeatedBlock


@frozen
class Segment:
    """The nodes of a repeated block that one network computes.

    Args:
        offsets: positions of its nodes in the block.
        outputs: (offset, index of the output) of its outputs.
        is_concurrent: whether it may run concurrently with the following segments, as nothing waits for it.
    """

    offsets: tuple[int, ...]
    outputs: frozenset[tuple[int, int]]
    is_concurrent: bool = False


def segments_of(body: Body, block: RepeatedBlock) -> list[Segment]:
    """Split a block into the segment that other nodes read, and the segment for KV caches alone, if any."""
    for_caches = _for_caches(body, block)
    caches = frozenset(
        (offset, index)
        for offset in for_caches
        for index, name in enumerate(body.nodes[block.start + offset].outputs)
        if name in body.given
    )
    if not caches:
        return [segment(body, block, range(block.period))]
    needed = [offset for offset in range(block.period) if offset not in for_caches]
    # Layers that only move elements are duplicated: TensorRT applies them on read, without writing the result.
    copied: set[int] = set()
    for offset in reversed(range(block.period)):
        node, readers = body.nodes[block.start + offset], for_caches | copied
        is_read = any(reader - block.start in readers for name in node.outputs for reader in body.readers[name])
        moves = isinstance(node.layer, Shuffle | Slice) and node.outputs[0] not in body.given
        if is_read and moves and offset not in for_caches:
            copied.add(offset)
    of_caches = Segment(tuple(sorted(for_caches | copied)), caches, is_concurrent=True)
    return [segment(body, block, needed, of_caches.offsets), of_caches]


def segment(body: Body, block: RepeatedBlock, offsets: Sequence[int], concurrent: Sequence[int] = ()) -> Segment:
    """The segment of the nodes at `offsets`; its outputs are the values that are read outside of it.

    Args:
        concurrent: offsets of the nodes of the concurrent segment, which also reads its outputs.
    """
    copies = {name for offset in concurrent for name in body.nodes[block.start + offset].outputs}

    def leaves(first: int, offset: int, index: int) -> bool:
        name = body.nodes[first + offset].outputs[index]
        readers = [reader - first for reader in body.readers[name]]
        has_copy = body.nodes[block.start + offset].outputs[index] in copies
        is_read_concurrently = not has_copy and any(reader in concurrent for reader in readers)
        is_read_outside = any(not 0 <= reader < block.period for reader in readers)
        return name in body.given or is_read_concurrently or is_read_outside

    outputs = (
        (offset, index)
        for offset in offsets
        for index in range(len(body.nodes[block.start + offset].outputs))
        if any(leaves(first, offset, index) for first in block.firsts)
    )
    return Segment(tuple(offsets), frozenset(outputs))


def _for_caches(body: Body, block: RepeatedBlock) -> set[int]:
    """Offsets of the nodes that only lead to outputs in the memory of inputs (KV caches)."""
    found: set[int] = set()

    def leads_to_caches(name: str, first: int) -> bool:
        if name in body.given:
            return body.given[name] in body.network.shared and not body.readers[name]
        return all(reader - first in found for reader in body.readers[name])

    for offset in reversed(range(block.period)):
        nodes = ((body.nodes[first + offset], first) for first in block.firsts)
        if all(leads_to_caches(name, first) for node, first in nodes for name in node.outputs):
            found.add(offset)
    return found
