"""Column blocks: a product with many columns as a batch of products with fewer."""

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
    """Computes products of many rows in blocks of columns: the kernel finishes one block after another, and finds what
    it reads again in the cache. See benchmarks/NOTES.md, "Products in other forms".

    Args:
        width: the fewest columns of a block.
        alignment: a block's columns are a multiple of this.
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
        """Into how many equal blocks columns are cut; 1 for none."""
        counts = range(columns // self.width, 1, -1)
        return next((count for count in counts if columns % (count * self.alignment) == 0), 1)


def product_in_blocks(net: NetworkBuilder, x: Value, matrix: Value, blocks: int) -> Value:
    """x [B, S, K] times the transpose of a matrix [1, N, K], as `blocks` products."""
    (batch, length, inner), columns = x.spec.shape, matrix.spec.shape[1]
    assert isinstance(columns, int)
    rows = net.reshape(x, (1, multiply(batch, length), inner))
    matrices = net.reshape(matrix, (blocks, columns // blocks, inner))
    products = net.permute(net.add(MatrixMultiply(transpose_y=True), rows, matrices), (1, 0, 2))
    return net.reshape(products, (batch, length, columns))
