"""Add a bias before an activation separately to each half of a matrix multiplication's columns."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.network.builder import NetworkBuilder
from ditto.network.graph import Network, Node, Value
from ditto.network.layers import Concatenation, Constant, ElementWise
from ditto.network.layers.elementwise import ELEMENTWISE
from ditto.network.weight import Weight, fold
from ditto.passes.network_pass import NodePass, Rewriter
from ditto.passes.row_product import RowProduct


@frozen
class BiasHalves(NodePass):
    """Adds the bias of a widening matrix multiplication before an activation to each half of the columns.

    This keeps bias and activation out of the GEMM kernel: for few rows TensorRT-RTX would fuse them and select a slower
    kernel. No gain if the matrix multiplication has no more columns than inputs. 11 % faster for a block of CLIP-L on
    H200, see benchmarks/NOTES.md.
    """

    name: ClassVar[str] = "bias halves"
    kinds = (ElementWise,)

    @override
    def replacement(self, net: Rewriter, node: Node) -> Value | None:
        if node.layer != ElementWise("SUM"):
            return None
        product, bias = _product(net.old, node), _bias(net.old, node)
        if product is None or bias is None or not _is_before_activation(net, node):
            return None
        if product.columns % 2 or product.columns <= product.inner:
            net.refuse(node, f"{product.columns} columns of {product.inner} inputs")
            return None
        return added_in_halves(net, net.values[node.inputs[0]], bias)


def added_in_halves(net: NetworkBuilder, x: Value, bias: Weight) -> Value:
    """Add a bias [1, 1, N] to x [B, S, N], half of the columns at a time."""
    half = bias.shape[2] // 2
    halves = [
        net.add(
            ElementWise("SUM"),
            net.slice(x, 2, start, half),
            net.constant(fold("slice", bias, 2, start, start + half, 1)),
        )
        for start in (0, half)
    ]
    return net.add(Concatenation(2), *halves)


def _product(network: Network, node: Node) -> RowProduct | None:
    """The matrix multiplication that is the first operand of a sum, None if it is another layer."""
    producer = network.producer(network.value(node.inputs[0]))
    return None if producer is None else RowProduct.of(network, producer)


def _bias(network: Network, node: Node) -> Weight | None:
    """The weight that is the second operand of a sum, if it has one value per column."""
    operand = network.value(node.inputs[1])
    producer = network.producer(operand)
    if producer is None or not isinstance(producer.layer, Constant) or operand.spec.shape[:2] != (1, 1):
        return None
    return producer.layer.weight


def _is_before_activation(net: Rewriter, node: Node) -> bool:
    """Whether only elementwise layers read a node's output."""
    readers = net.readers(node.outputs[0])
    is_output = node.outputs[0] in net.old.outputs.values()
    return bool(readers) and not is_output and all(isinstance(each.layer, ELEMENTWISE) for each in readers)
