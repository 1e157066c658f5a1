"""Detection of repeated blocks, such as the layers of a transformer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from attrs import frozen

from ditto.network.graph import Node
from ditto.network.layers import Dequantize, MatrixMultiply, Shuffle
from ditto.passes.body import Body

# Number of periods to try: shorter distances between equal nodes within a block may be more frequent than the period.
_MAX_PERIODS = 64
# Minimum fraction of the nodes that a repetition must save; equal nodes within a block save less.
_MIN_SAVED = 1 / 6


@frozen
class RepeatedBlock:
    """Consecutive equal blocks.

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
        """The index of the first node of each block."""
        return range(self.start, self.stop, self.period)


def find_repeated_block(body: Body) -> RepeatedBlock | None:
    """The repetition that saves the most nodes, None if nothing repeats."""
    signatures = _signatures(body)
    best, saved = None, _MIN_SAVED * len(body.nodes)
    for period in _periods(signatures):
        for start, stop in _repeats(signatures, period):
            if stop - start > saved:
                block = _best_boundary(body, start, stop + period, period)
                if block is not None and block.period * (block.count - 1) > saved:
                    best, saved = block, block.period * (block.count - 1)
    return best


def _best_boundary(body: Body, start: int, stop: int, period: int) -> RepeatedBlock | None:
    """Choose the block boundary within a repeating range of nodes.

    A block preferably begins with a matrix multiplication: TensorRT materialises its operands anyway, and layers that
    it fuses (a sum and the norm after it) stay in one segment. Among the candidates, the boundary with the fewest
    values passed between blocks wins.
    """
    blocks = (RepeatedBlock(first, period, (stop - first) // period) for first in range(start, start + period))
    candidates = [block for block in blocks if block.count > 1 and _has_equal_edges(body, block)]
    return min(
        candidates,
        key=lambda block: (not _begins_with_product(body, block), _crossing_values(body, block), -block.count),
        default=None,
    )


def _begins_with_product(body: Body, block: RepeatedBlock) -> bool:
    """Whether a block begins with a matrix multiplication with a weight, possibly after shuffles of the operands."""
    seen: set[str] = set()
    for node in body.nodes[block.start : block.start + block.period]:
        weights = [name for name in node.inputs if name in seen or body.is_weight(name)]
        if isinstance(node.layer, MatrixMultiply):
            return bool(weights)
        if not isinstance(node.layer, (Dequantize, Shuffle)):
            return False
        seen.update(node.outputs if weights else ())
    return False


def _crossing_values(body: Body, block: RepeatedBlock) -> int:
    """The number of values of the first block that later nodes read."""
    end = block.start + block.period
    values = (name for node in body.nodes[block.start : end] for name in node.outputs)
    return sum(any(reader >= end for reader in body.readers[name]) for name in values)


def _has_equal_edges(body: Body, block: RepeatedBlock) -> bool:
    """Whether the connections between nodes are the same in all blocks."""
    for offset in range(block.period):
        for position in range(len(body.nodes[block.start + offset].inputs)):
            names = [body.nodes[first + offset].inputs[position] for first in block.firsts]
            distances = (body.index.get(name, -1) - first for name, first in zip(names, block.firsts))
            if len({max(distance, -1) for distance in distances}) > 1:
                return False
    return True


def _signatures(body: Body) -> list[int]:
    """An integer for each node, equal for nodes with equal layers, specs and kinds of inputs."""
    known: dict[object, int] = {}
    return [known.setdefault(_signature(body, node), len(known)) for node in body.nodes]


def _signature(body: Body, node: Node) -> object:
    inputs = tuple(_input_signature(body, name) for name in node.inputs)
    return node.layer, inputs, tuple(body.network.value(name).spec for name in node.outputs)


def _input_signature(body: Body, name: str) -> object:
    if name in body.sizes or (name in body.constants and not body.is_weight(name)):
        return name
    return name in body.constants, body.network.value(name).spec


def _periods(signatures: Sequence[int]) -> list[int]:
    """Distances between nodes and the next node with the same signature, the most frequent first."""
    last: dict[int, int] = {}
    found: Counter[int] = Counter()
    for index, signature in enumerate(signatures):
        if signature in last:
            found[index - last[signature]] += 1
        last[signature] = index
    return [period for period, _ in found.most_common(_MAX_PERIODS)]


def _repeats(signatures: Sequence[int], period: int) -> Iterator[tuple[int, int]]:
    """Ranges, at least a period long, in which each node has the same signature as the node a period later."""
    start = 0
    for index in range(len(signatures) - period + 1):
        ends = index == len(signatures) - period or signatures[index] != signatures[index + period]
        if ends:
            if index - start >= period:
                yield start, index
            start = index + 1
