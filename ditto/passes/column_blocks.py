"""Split a matrix multiplication with many columns into a batch of smaller ones."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.network.builder import NetworkBuilder
from ditto.network.dims import multiply
from ditto.network.graph import Node, Value
from ditto.network.layers import MatrixMultiply
from ditto.passes.network_pass import NodePass, Rewriter
from ditto.passes.row_product import RowProduct


@frozen
class ColumnBlocks(NodePass):
    """Computes matrix multiplications of many rows in blocks of columns.

    The kernel computes one block after another, and hits the cache when it rereads its operands; see
    benchmarks/NOTES.md.

    Args:
        width: minimum number of columns of a block.
        alignment: the number of columns of a block is a multiple of this.
    """

    name: ClassVar[str] = "column blocks"
    kinds = (MatrixMultiply,)

    width: int
    alignment: int = 8

    @override
    def replacement(self, net: Rewriter, node: Node) -> Value | None:
        product = RowProduct.of(net.old, node)
        if product is None or product.length == 1:
            return None
        blocks = self.blocks(product.columns)
        if blocks == 1:
            net.refuse(node, f"{product.columns} columns have no equal blocks of {self.width} or more")
            return None
        x, matrix = net.inputs(node)
        return product_in_blocks(net, x, matrix, blocks)

    def blocks(self, columns: int) -> int:
        """The number of equal blocks that columns are split into; 1 for no split."""
        counts = range(columns // self.width, 1, -1)
        return next((count for count in counts if columns % (count * self.alignment) == 0), 1)


def product_in_blocks(net: NetworkBuilder, x: Value, matrix: Value, blocks: int) -> Value:
    """x [B, S, K] times the transpose of a matrix [1, N, K], as `blocks` matrix multiplications."""
    (batch, length, inner), columns = x.spec.shape, matrix.spec.shape[1]
    assert isinstance(columns, int)
    rows = net.reshape(x, (1, multiply(batch, length), inner))
    matrices = net.reshape(matrix, (blocks, columns // blocks, inner))
    products = net.permute(net.add(MatrixMultiply(transpose_y=True), rows, matrices), (1, 0, 2))
    return net.reshape(products, (batch, length, columns))
