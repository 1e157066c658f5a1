"""Transpose chains: products with the matrix on the left, and what stands between them, computed transposed.

B batch, S rows, M = B S tokens, K inner size, N columns.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.network.builder import NetworkBuilder
from ditto.network.dims import Dim, multiply
from ditto.network.graph import Network, Node, Value
from ditto.network.layers import ELEMENTWISE, Constant, MatrixMultiply, Slice
from ditto.network.weight import Weight, fold
from ditto.passes.column_blocks import ColumnBlocks
from ditto.passes.network_pass import NetworkPass, PassResult, Rewriter
from ditto.passes.row_product import RowProduct


@frozen
class TransposeChains(NetworkPass):
    """Puts the matrix of a product on the left, for which TensorRT-RTX has faster kernels where shapes are static; the
    result is [N, M]. What stands between two such products element by element, as in an MLP, is computed in that form.
    Norms are not: their sums would run across memory. A product is transposed if its input is, if only such products
    read it, or if it has no more columns than inputs. 5 to 20 % of prefill on an H200: see benchmarks/NOTES.md, "A
    block at a time".

    Args:
        blocks: columns of the transposed products are cut in this way.
    """

    name: ClassVar[str] = "transpose chains"

    blocks: ColumnBlocks

    @override
    def run(self, network: Network) -> PassResult:
        return _Chains(network, self.blocks).run()


def transposed_product(net: NetworkBuilder, x: Value, transposed: Value | None, matrix: Value, blocks: int) -> Value:
    """A matrix [1, N, K] in blocks of rows, times the transpose of x [B, S, K]: [blocks, N / blocks, M].

    Args:
        transposed: that transpose, [1, K, M], where it is there already.
    """
    (batch, length, inner), columns = x.spec.shape, matrix.spec.shape[1]
    assert isinstance(columns, int)
    tokens = multiply(batch, length)
    matrices = net.reshape(matrix, (blocks, columns // blocks, inner))
    if transposed is not None:
        return net.add(MatrixMultiply(), matrices, net.reshape(transposed, (1, inner, tokens)))
    return net.add(MatrixMultiply(transpose_y=True), matrices, net.reshape(x, (1, tokens, inner)))


def back_in_rows(net: NetworkBuilder, product: Value, batch: Dim, length: Dim, columns: int) -> Value:
    """A transposed product as [B, S, N]. The permutation comes last: with a reshape behind it TensorRT-RTX does not
    take a sum into the kernel that transposes, see benchmarks/NOTES.md."""
    return net.permute(net.reshape(product, (columns, batch, length)), (1, 2, 0))


class _Chains:
    """A network whose products are being transposed. `_transposed` knows values [B, S, N] as [1, N, M], by their old
    names; None where there is no such form."""

    def __init__(self, network: Network, blocks: ColumnBlocks) -> None:
        self._net, self._blocks = Rewriter.of(network), blocks
        self._transposed: dict[str, Value | None] = {}

    def run(self) -> PassResult:
        """Go through all nodes."""
        net = self._net
        for node in net.old.nodes:
            product = RowProduct.of(net.old, node)
            if product is None or product.length == 1:
                net.copy(node)
                continue
            with net.network.placed(node.place):
                transposed = self._as_transposed(product.rows)
                if transposed is not None or product.columns <= product.inner or self._leads_to_products(node):
                    self._transpose(node, product, transposed)
                    net.applied += 1
                else:
                    net.copy(node)
                    net.refuse(node, "a product with more columns than inputs is read by more than products")
        return net.result()

    def _transpose(self, node: Node, product: RowProduct, transposed: Value | None) -> None:
        net, blocks, columns = self._net, self._blocks.blocks(product.columns), product.columns
        x, matrix = net.inputs(node)
        result = transposed_product(net, x, transposed, matrix, blocks)
        net.values[node.outputs[0]] = back_in_rows(net, result, product.batch, product.length, columns)
        tokens = multiply(product.batch, product.length)
        self._transposed[node.outputs[0]] = net.reshape(result, (1, columns, tokens))

    def _as_transposed(self, value: Value) -> Value | None:
        """An old value [B, S, N] as [1, N, M], if it comes of nothing but transposed products, element by element."""
        if value.name not in self._transposed:
            self._transposed[value.name] = self._computed_transposed(value)
        return self._transposed[value.name]

    def _computed_transposed(self, value: Value) -> Value | None:
        net, node = self._net, self._net.old.producer(value)
        if node is None or value.rank != 3:
            return None
        if isinstance(node.layer, Constant):
            return _constant_transposed(net, node.layer.weight)
        if not isinstance(node.layer, (Slice, *ELEMENTWISE)):
            return None
        inputs: list[Value] = []
        for name in node.inputs[:1] if isinstance(node.layer, Slice) else node.inputs:  # a slice's second is its sizes
            transposed = self._as_transposed(net.old.value(name))
            if transposed is None:
                return None
            inputs.append(transposed)
        if isinstance(node.layer, Slice):
            return _slice_transposed(net, node.layer, *inputs)
        return net.add(node.layer, *inputs)

    def _leads_to_products(self, node: Node) -> bool:
        """Whether a product is read by others alone, with nothing but slices and elementwise layers between."""
        old, waiting, seen = self._net.old, [node.outputs[0]], {node.outputs[0]}
        given = {*old.outputs.values()}
        while waiting:
            name = waiting.pop()
            if name in given or not self._net.readers(name):
                return False
            for reader in self._net.readers(name):
                product = RowProduct.of(old, reader)
                if product is not None and product.rows.name == name:
                    continue
                if not isinstance(reader.layer, (Slice, *ELEMENTWISE)):
                    return False
                if reader.outputs[0] not in seen:
                    seen.add(reader.outputs[0])
                    waiting.append(reader.outputs[0])
        return True


def _constant_transposed(net: NetworkBuilder, weight: Weight) -> Value | None:
    """A number for each column, or one for all."""
    if weight.shape[:2] != (1, 1):
        return None
    return net.constant(weight if weight.shape[2] == 1 else fold("reshape", weight, (1, weight.shape[2], 1)))


def _slice_transposed(net: NetworkBuilder, layer: Slice, transposed: Value) -> Value | None:
    """Neighbouring columns."""
    size = layer.size[2]
    if layer.start[:2] != (0, 0) or layer.stride != (1, 1, 1) or not isinstance(size, int):
        return None
    return net.slice(transposed, 1, layer.start[2], size)
