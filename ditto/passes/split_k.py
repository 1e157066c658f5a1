"""Split-K: matrix multiplications of single rows as sums over parts of the inner dimension."""

from __future__ import annotations

from typing import ClassVar

import torch
from attrs import frozen
from typing_extensions import override

from ditto.network.builder import NetworkBuilder
from ditto.network.graph import Node, Value
from ditto.network.layers import MatrixMultiply, Reduce
from ditto.passes.network_pass import NodePass, Rewriter
from ditto.passes.row_product import RowProduct


@frozen
class SplitK(NodePass):
    """Splits the matrix multiplication of [B, 1, K] into a batch over parts of K, summed in float32.

    For a single row TensorRT-RTX selects a kernel without tensor cores, and for few columns too few thread blocks to
    saturate memory bandwidth; a batched matrix multiplication uses tensor cores, and thread blocks for each part. The
    sum is fused into its consumer. Up to 8 % faster decode on H200, see benchmarks/NOTES.md.

    Args:
        shortest_part: minimum inner size of a part.
        many_columns: number of columns from which there are two parts; below it four, if they are long enough.
        alignment: the inner size of a part is a multiple of this, the number of values that kernels read at once.
    """

    name: ClassVar[str] = "split K"
    kinds = (MatrixMultiply,)

    shortest_part: int
    many_columns: int
    alignment: int = 8

    @override
    def replacement(self, net: Rewriter, node: Node) -> Value | None:
        product = RowProduct.of(net.old, node)
        if product is None or product.length != 1:
            return None
        parts = self.parts(product.columns, product.inner)
        if parts == 1:
            net.refuse(node, f"an inner size of {product.inner} has no parts of {self.shortest_part} or more")
            return None
        x, matrix = net.inputs(node)
        return split_product(net, x, matrix, parts)

    def parts(self, columns: int, inner: int) -> int:
        """The number of parts of a matrix multiplication; 1 for no split."""
        wanted = 2 if columns >= self.many_columns else 4
        fitting = (
            parts
            for parts in (wanted, 2)
            if inner % (parts * self.alignment) == 0 and inner // parts >= self.shortest_part
        )
        return next(fitting, 1)


def split_product(net: NetworkBuilder, x: Value, matrix: Value, parts: int) -> Value:
    """x [B, 1, K] times the transpose of a matrix [1, N, K], as a sum of `parts` matrix multiplications.

    TensorRT-RTX reads the parts in place.
    """
    (batch, _, inner), columns = x.spec.shape, matrix.spec.shape[1]
    assert isinstance(inner, int)
    width = inner // parts
    rows = net.permute(net.reshape(x, (batch, parts, width)), (1, 0, 2))
    matrices = net.permute(net.reshape(matrix, (columns, parts, width)), (1, 0, 2))
    products = net.permute(net.add(MatrixMultiply(transpose_y=True), rows, matrices), (1, 0, 2))
    total = net.add(Reduce("SUM", (1,), keep=True), net.cast(products, torch.float32))
    return net.cast(total, x.spec.dtype)
