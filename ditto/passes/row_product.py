"""Matrix multiplication of rows with a constant matrix: a lowered linear layer over tokens."""

from __future__ import annotations

from attrs import frozen

from ditto.network.dims import Dim
from ditto.network.graph import Network, Node, Value
from ditto.network.layers import Constant, MatrixMultiply


@frozen
class RowProduct:
    """x [batch, length, inner] times the transpose of a constant matrix [1, columns, inner]."""

    rows: Value
    matrix: Value

    @staticmethod
    def of(network: Network, node: Node) -> RowProduct | None:
        """The row product that a node computes, None if it is another layer."""
        if node.layer != MatrixMultiply(transpose_y=True):
            return None
        rows, matrix = (network.value(name) for name in node.inputs)
        producer = network.producer(matrix)
        is_matrix = producer is not None and isinstance(producer.layer, Constant)
        return RowProduct(rows, matrix) if is_matrix and rows.rank == 3 and matrix.spec.shape[0] == 1 else None

    @property
    def batch(self) -> Dim:
        return self.rows.spec.shape[0]

    @property
    def length(self) -> Dim:
        return self.rows.spec.shape[1]

    @property
    def inner(self) -> int:
        return int(self.matrix.spec.shape[2])  # type: ignore[arg-type]

    @property
    def columns(self) -> int:
        return int(self.matrix.spec.shape[1])  # type: ignore[arg-type]
