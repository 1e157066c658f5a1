"""Compute chains of matrix multiplications and elementwise layers in transposed form.

B batch, S rows, M = B S tokens, K inner size, N columns.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.network.builder import NetworkBuilder
from ditto.network.dims import Dim, multiply
from ditto.network.graph import Network, Node, Value
from ditto.network.layers import Constant, MatrixMultiply, Slice
from ditto.network.layers.elementwise import ELEMENTWISE
from ditto.network.weight import Weight, fold
from ditto.passes.column_blocks import ColumnBlocks
from ditto.passes.network_pass import NetworkPass, PassResult, Rewriter
from ditto.passes.row_product import RowProduct


@frozen
class TransposeChains(NetworkPass):
    """Makes the constant matrix the left operand, for which TensorRT-RTX has faster kernels with static shapes.

    The result is [N, M]. Elementwise layers between two such matrix multiplications, as in an MLP, are computed in
    transposed form; norms are not, because their sums would run across memory. A matrix multiplication is transposed if
    its input is, if only matrix multiplications read it, or if it has no more columns than inputs. 5 to 20 % faster
    prefill on H200, see benchmarks/NOTES.md.

    Args:
        blocks: how columns of the transposed matrix multiplications are split.
    """

    name: ClassVar[str] = "transpose chains"

    blocks: ColumnBlocks

    @override
    def run(self, network: Network) -> PassResult:
        return _Chains(network, self.blocks).run()


def transposed_product(net: NetworkBuilder, x: Value, transposed: Value | None, matrix: Value, blocks: int) -> Value:
    """A matrix [1, N, K] in blocks of rows, times the transpose of x [B, S, K]: [blocks, N / blocks, M].

    Args:
        transposed: the transpose of x, [1, K, M], if it has been computed already.
    """
    (batch, length, inner), columns = x.spec.shape, matrix.spec.shape[1]
    assert isinstance(columns, int)
    tokens = multiply(batch, length)
    matrices = net.reshape(matrix, (blocks, columns // blocks, inner))
    if transposed is not None:
        return net.add(MatrixMultiply(), matrices, net.reshape(transposed, (1, inner, tokens)))
    return net.add(MatrixMultiply(transpose_y=True), matrices, net.reshape(x, (1, tokens, inner)))


def back_in_rows(net: NetworkBuilder, product: Value, batch: Dim, length: Dim, columns: int) -> Value:
    """Transpose the result of a transposed matrix multiplication back to [B, S, N].

    The permutation comes last: TensorRT-RTX does not fuse a sum into the transpose kernel if a reshape follows it, see
    benchmarks/NOTES.md.
    """
    return net.permute(net.reshape(product, (columns, batch, length)), (1, 2, 0))


class _Chains:
    """One run of the pass.

    `_transposed` caches the transposed form [1, N, M] of values [B, S, N], by their old names; None if there is none.
    """

    def __init__(self, network: Network, blocks: ColumnBlocks) -> None:
        self._net, self._blocks = Rewriter.of(network), blocks
        self._transposed: dict[str, Value | None] = {}

    def run(self) -> PassResult:
        """Process all nodes in order."""
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
        """An old value [B, S, N] as [1, N, M], if elementwise layers compute it from transposed results alone."""
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
        # The second input of a slice is its sizes.
        for name in node.inputs[:1] if isinstance(node.layer, Slice) else node.inputs:
            transposed = self._as_transposed(net.old.value(name))
            if transposed is None:
                return None
            inputs.append(transposed)
        if isinstance(node.layer, Slice):
            return _slice_transposed(net, node.layer, *inputs)
        return net.add(node.layer, *inputs)

    def _leads_to_products(self, node: Node) -> bool:
        """Whether only matrix multiplications read a result, directly or via slices and elementwise layers."""
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
    """A constant [1, 1, N] or [1, 1, 1] in transposed form; None for other shapes."""
    if weight.shape[:2] != (1, 1):
        return None
    return net.constant(weight if weight.shape[2] == 1 else fold("reshape", weight, (1, weight.shape[2], 1)))


def _slice_transposed(net: NetworkBuilder, layer: Slice, transposed: Value) -> Value | None:
    """A slice of contiguous columns in transposed form; None for other slices."""
    size = layer.size[2]
    if layer.start[:2] != (0, 0) or layer.stride != (1, 1, 1) or not isinstance(size, int):
        return None
    return net.slice(transposed, 1, layer.start[2], size)
