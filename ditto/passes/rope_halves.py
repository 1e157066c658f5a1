"""Decompose rotary embeddings of halves into elementwise layers."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.network.graph import Node, Value
from ditto.network.layers import Concatenation, ElementWise, RotaryEmbedding, Unary
from ditto.passes.network_pass import NodePass, Rewriter


@frozen
class RopeHalves(NodePass):
    """Decomposes rotary embeddings into elementwise layers.

    Each half of a head is multiplied by the cosines, and the other half times the sines (negated for the first half) is
    added. 0.8 % faster prefill of four prompts with TensorRT-RTX on H200, see benchmarks/NOTES.md.
    """

    name: ClassVar[str] = "rope halves"
    kinds = (RotaryEmbedding,)

    @override
    def replacement(self, net: Rewriter, node: Node) -> Value | None:
        assert isinstance(node.layer, RotaryEmbedding)
        x, *angles = net.inputs(node)
        batch, heads, count, width = x.spec.shape
        if node.layer.interleaved or node.layer.width != width:
            net.refuse(node, "not the two halves of a whole head are rotated")
            return None
        assert isinstance(width, int)
        cosines, sines = (net.reshape(angle, (batch, 1, count, 1, width // 2)) for angle in angles)
        negative = net.add(Unary("NEG"), sines)
        halves = net.reshape(x, (batch, heads, count, 2, width // 2))
        others = net.box(halves, (0, 0, 0, 1, 0), halves.spec.shape, (1, 1, 1, -1, 1))
        turned = net.add(ElementWise("PROD"), others, net.add(Concatenation(3), negative, sines))
        result = net.add(ElementWise("SUM"), net.add(ElementWise("PROD"), halves, cosines), turned)
        return net.reshape(result, x.spec.shape)
