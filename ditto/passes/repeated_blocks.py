"""Repeated blocks: the layers of a transformer are the same network with other weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from attrs import frozen

from ditto.network.graph import Node
from ditto.network.layers import MatrixMultiply, Shuffle
from ditto.passes.body import Body

# Of a network's periods, those that are tried: the shortest distance between likes within a block may be more frequent.
_MOST_PERIODS = 64
# A repetition that spares less than this share of the nodes is not worth a cut: likes within a block, say.
_LEAST_SPARED = 1 / 6


@frozen
class RepeatedBlock:
    """Equal blocks in a row.

    Args:
        start: index of the first block's first node in the body.
        period: number of nodes of a block.
        count: number of blocks.
    """

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.period * self.count

    @property
    def firsts(self) -> range:
        """The index of each block's first node."""
        return range(self.start, self.stop, self.period)


def find_repeated_block(body: Body) -> RepeatedBlock | None:
    """The repetition that spares the most nodes, None where nothing repeats."""
    signatures = _signatures(body)
    best, spared = None, _LEAST_SPARED * len(body.nodes)
    for period in _periods(signatures):
        for start, stop in _repeats(signatures, period):
            if stop - start > spared:
                block = _cut(body, start, stop + period, period)
                if block is not None and block.period * (block.count - 1) > spared:
                    best, spared = block, block.period * (block.count - 1)
    return best


def _cut(body: Body, start: int, stop: int, period: int) -> RepeatedBlock | None:
    """Where to cut a stretch that repeats: before a product, whose operands TensorRT materialises anyway, so that what
    it fuses (a sum and the norm behind it) stays in one segment; of such places, or of all if there is none, where a
    block hands on the fewest values."""
    blocks = (RepeatedBlock(first, period, (stop - first) // period) for first in range(start, start + period))
    fitting = [block for block in blocks if block.count > 1 and _is_alike(body, block)]
    return min(
        fitting,
        key=lambda block: (not _begins_with_product(body, block), _handed_on(body, block), -block.count),
        default=None,
    )


def _begins_with_product(body: Body, block: RepeatedBlock) -> bool:
    """Whether the first thing that a block computes is a product with a weight; both may change their shapes."""
    seen: set[str] = set()
    for node in body.nodes[block.start : block.start + block.period]:
        weights = [name for name in node.inputs if name in seen or body.is_weight(name)]
        if isinstance(node.layer, MatrixMultiply):
            return bool(weights)
        if not isinstance(node.layer, Shuffle):
            return False
        seen.update(node.outputs if weights else ())
    return False


def _handed_on(body: Body, block: RepeatedBlock) -> int:
    """How many values of the first block are read behind it."""
    end = block.start + block.period
    values = (name for node in body.nodes[block.start : end] for name in node.outputs)
    return sum(any(reader >= end for reader in body.readers[name]) for name in values)


def _is_alike(body: Body, block: RepeatedBlock) -> bool:
    """Whether the same nodes read each other in all blocks."""
    for offset in range(block.period):
        for position in range(len(body.nodes[block.start + offset].inputs)):
            names = [body.nodes[first + offset].inputs[position] for first in block.firsts]
            distances = (body.index.get(name, -1) - first for name, first in zip(names, block.firsts))
            if len({max(distance, -1) for distance in distances}) > 1:
                return False
    return True


def _signatures(body: Body) -> list[int]:
    """Numbers, equal where nodes can stand for each other as far as they themselves say."""
    known: dict[object, int] = {}
    return [known.setdefault(_signature(body, node), len(known)) for node in body.nodes]


def _signature(body: Body, node: Node) -> object:
    inputs = tuple(_like(body, name) for name in node.inputs)
    return node.layer, inputs, tuple(body.network.value(name).spec for name in node.outputs)


def _like(body: Body, name: str) -> object:
    if name in body.sizes or (name in body.constants and not body.is_weight(name)):
        return name
    return name in body.constants, body.network.value(name).spec


def _periods(signatures: Sequence[int]) -> list[int]:
    """Distances between nodes and their next likes, the most frequent first."""
    last: dict[int, int] = {}
    found: Counter[int] = Counter()
    for index, signature in enumerate(signatures):
        if signature in last:
            found[index - last[signature]] += 1
        last[signature] = index
    return [period for period, _ in found.most_common(_MOST_PERIODS)]


def _repeats(signatures: Sequence[int], period: int) -> Iterator[tuple[int, int]]:
    """The stretches, of a period at least, in which each node has its like a period later."""
    start = 0
    for index in range(len(signatures) - period + 1):
        ends = index == len(signatures) - period or signatures[index] != signatures[index + period]
        if ends:
            if index - start >= period:
                yield start, index
            start = index + 1
