"""Merge consecutive shuffles."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.network.graph import Node, Value
from ditto.network.layers import Shuffle
from ditto.passes.network_pass import NodePass, Rewriter


@frozen
class FoldShuffles(NodePass):
    """Replaces a shuffle of a shuffle by a single one, if at most one of the two reshapes.

    The first shuffle stays for its other readers.
    """

    name: ClassVar[str] = "fold shuffles"
    kinds = (Shuffle,)

    @override
    def replacement(self, net: Rewriter, node: Node) -> Value | None:
        layer = _fixed(node)
        if layer is None:
            return None
        producer = net.network.producer(net.values[node.inputs[0]])
        before = None if producer is None else _fixed(producer)
        if producer is None or before is None or (before.reshape is not None and layer.reshape is not None):
            return None
        source = net.network.value(producer.inputs[0])
        if before.reshape is None:
            axes = _after(before.first, before.second)
            return net.add(Shuffle(_after(axes, layer.first), layer.reshape, layer.second), source)
        axes = _after(layer.first, layer.second)
        return net.add(Shuffle(before.first, before.reshape, _after(before.second, axes)), source)


def _fixed(node: Node) -> Shuffle | None:
    """The shuffle of a node, None if it is another layer or has its sizes as an input."""
    return node.layer if isinstance(node.layer, Shuffle) and node.layer.sizes is None else None


def _after(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The composition of two transposes; None for the identity."""
    if first is None or second is None:
        axes = first or second
    else:
        axes = tuple(first[axis] for axis in second)
    return None if axes is None or axes == tuple(range(len(axes))) else axes
