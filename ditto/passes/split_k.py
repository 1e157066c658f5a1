"""Split-K: products of single rows as sums over parts of the inner size."""

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
    """Computes the product of [B, 1, K] with a matrix as a batch of products over parts of K, and their sum in float32.

    For a single row TensorRT-RTX takes a kernel without tensor cores, and for few columns too few thread blocks to keep
    the memory busy; a batch gets tensor cores, and thread blocks for each part. What reads the sum computes it. Up to
    8 % of decode on an H200: see benchmarks/NOTES.md, "What the traces of single kernels showed".

    Args:
        shortest_part: the smallest inner size of a part.
        many_columns: from so many columns on there are two parts, below four if they are long enough.
        alignment: parts are a multiple of this, as many values as kernels read at once.
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
        """Into how many parts a product is split; 1 for none."""
        wanted = 2 if columns >= self.many_columns else 4
        fitting = (
            parts
            for parts in (wanted, 2)
            if inner % (parts * self.alignment) == 0 and inner // parts >= self.shortest_part
        )
        return next(fitting, 1)


def split_product(net: NetworkBuilder, x: Value, matrix: Value, parts: int) -> Value:
    """x [B, 1, K] times the transpose of a matrix [1, N, K], as a sum of `parts` products. TensorRT-RTX reads the parts
    where they lie."""
    (batch, _, inner), columns = x.spec.shape, matrix.spec.shape[1]
    assert isinstance(inner, int)
    width = inner // parts
    rows = net.permute(net.reshape(x, (batch, parts, width)), (1, 0, 2))
    matrices = net.permute(net.reshape(matrix, (columns, parts, width)), (1, 0, 2))
    products = net.permute(net.add(MatrixMultiply(transpose_y=True), rows, matrices), (1, 0, 2))
    total = net.add(Reduce("SUM", (1,), keep=True), net.cast(products, torch.float32))
    return net.cast(total, x.spec.dtype)
