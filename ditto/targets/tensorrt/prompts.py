"""Linear layers over the tokens of prompts, in the forms for which TensorRT-RTX has fast kernels at static shapes.

B batch, S rows, M = B S tokens, K inner size, N columns.

A product is computed in blocks of its columns, as a batch of smaller ones: the kernel goes through one block after the
other, and finds what it reads again in the cache. With the matrix on the left, which has faster kernels, the result
lies the other way round, [N, M]; what stands between two such products, as in an MLP, is computed in that form. Norms
are not: their sums would run across memory, and take ten times as long. Measured on an H200, a layer of Llama-7B's
size, 640 and 2560 tokens: 650 us become 526, 2140 become 1830 (benchmarks/NOTES.md). Where lengths are dynamic both
are within 2 %.
"""

from __future__ import annotations

import operator

import torch
from attrs import define, field

from ditto.lowering import Lowering, Operand, Table
from ditto.lowering.arithmetic import binary
from ditto.lowering.linear import linear
from ditto.network.dims import multiply
from ditto.network.graph import Node, Value
from ditto.network.layers import Activation, Cast, Constant, ElementWise, MatrixMultiply, Slice, Unary
from ditto.network.weight import Folded, Literal, Stored, Weight, fold
from ditto.targets.tensorrt.products import ALIGNED, linear_of_few_rows

_aten = torch.ops.aten

# The columns of a block, at least.
BLOCK = 2048
_BY_ELEMENT = (ElementWise, Activation, Unary, Cast)


@define
class PromptProducts:
    """Lowerings of linear layers of one network, which remember what they made the other way round."""

    _turned: dict[str, Value | None] = field(factory=dict)

    def table(self) -> Table:
        """By operator."""
        return {_aten.linear.default: self.linear}

    def linear(self, net: Lowering, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
        """A linear layer of [B, S, K]: the other way round where its input lies so or what follows can, else in
        blocks."""
        value = net.value(x)
        is_matrix = isinstance(weight, (Stored, Literal, Folded)) and len(weight.shape) == 2
        if not is_matrix or value.rank != 3:
            return linear(net, x, weight, bias)
        if value.spec.shape[1] == 1:
            return linear_of_few_rows(net, x, weight, bias)
        columns, inner = weight.shape
        blocks = blocks_of(columns, BLOCK)
        turned = self._turned_of(net, value)
        if turned is not None or columns <= inner or _leads_to_products(net):
            made = self._product_turned(net, value, turned, weight, blocks)
        elif blocks > 1:
            made = _product(net, value, weight, blocks)
        else:
            return linear(net, x, weight, bias)
        return made if bias is None else binary(net, "SUM", made, bias, made.spec.dtype)

    def _product_turned(self, net: Lowering, x: Value, turned: Value | None, weight: Weight, blocks: int) -> Value:
        """The product as [N, M], seen as [B, S, N]."""
        (batch, length, _), (columns, inner) = x.spec.shape, weight.shape
        tokens = multiply(batch, length)
        matrices = net.reshape(net.operand(weight, x.spec.dtype, 3), (blocks, columns // blocks, inner))
        if turned is not None:
            made = net.add(MatrixMultiply(), matrices, net.reshape(turned, (1, inner, tokens)))
        else:
            made = net.add(MatrixMultiply(transpose_y=True), matrices, net.reshape(x, (1, tokens, inner)))
        # Turned back at once into rows of prompts: TensorRT-RTX takes a sum behind that into the kernel that turns, but
        # not with another change of shape between. Measured on an H200, four prompts of 640 tokens, 4096 columns: 23 us
        # and 12 for the norm that follows instead of 41 and 22.
        seen = net.permute(net.reshape(made, (columns, batch, length)), (1, 2, 0))
        self._turned[seen.name] = net.reshape(made, (1, columns, tokens))
        return seen

    def _turned_of(self, net: Lowering, value: Value) -> Value | None:
        """A value [B, S, N] as [1, N, M], if it comes of nothing but such products, element by element."""
        if value.name not in self._turned:
            self._turned[value.name] = self._turn(net, value)
        return self._turned[value.name]

    def _turn(self, net: Lowering, value: Value) -> Value | None:
        made = net.network.producer(value)
        if made is None or value.rank != 3:
            return None
        if isinstance(made.layer, Constant):
            return _constant_turned(net, made.layer.weight)
        if not isinstance(made.layer, (Slice, *_BY_ELEMENT)):
            return None
        inputs: list[Value] = []
        for name in made.inputs[: _operands(made)]:
            turned = self._turned_of(net, net.network.value(name))
            if turned is None:
                return None
            inputs.append(turned)
        return (
            _slice_turned(net, made.layer, *inputs) if isinstance(made.layer, Slice) else net.add(made.layer, *inputs)
        )


def _operands(node: Node) -> int:
    """How many of a node's inputs are data: a slice's second says its sizes."""
    return 1 if isinstance(node.layer, Slice) else len(node.inputs)


def _constant_turned(net: Lowering, weight: Weight) -> Value | None:
    """A number for each column, or one for all."""
    if weight.shape[:2] != (1, 1):
        return None
    return net.value(weight if weight.shape[2] == 1 else fold("reshape", weight, (1, weight.shape[2], 1)))


def _slice_turned(net: Lowering, layer: Slice, turned: Value) -> Value | None:
    """Neighbouring columns."""
    size = layer.size[2]
    if layer.start[:2] != (0, 0) or layer.stride != (1, 1, 1) or not isinstance(size, int):
        return None
    return net.slice(turned, 1, layer.start[2], size)


def _leads_to_products(net: Lowering) -> bool:
    """Whether the linear layer that is being lowered is read by others alone, with nothing but slices and functions of
    elements between."""
    assert net.node is not None
    waiting, seen = list(net.node.users), set(net.node.users)
    while waiting:
        node = waiting.pop()
        if node.target == _aten.linear.default:
            continue
        if node.target not in _FUNCTIONS or not node.users:
            return False
        fresh = [user for user in node.users if user not in seen]
        seen.update(fresh)
        waiting += fresh
    return bool(seen)


# Functions of elements, and what takes columns apart.
_FUNCTIONS = frozenset(
    {
        _aten.slice.Tensor,
        _aten.split.Tensor,
        _aten.split_with_sizes.default,
        operator.getitem,
        _aten.silu.default,
        _aten.gelu.default,
        _aten.relu.default,
        _aten.sigmoid.default,
        _aten.tanh.default,
        _aten.mul.Tensor,
        _aten.add.Tensor,
        _aten.pow.Tensor_Scalar,
        _aten.square.default,
        _aten._to_copy.default,
    }
)


def blocks_of(columns: int, width: int) -> int:
    """Into how many blocks columns are cut, each of at least `width`."""
    counts = range(columns // width, 1, -1)
    return next((blocks for blocks in counts if columns % (blocks * ALIGNED) == 0), 1)


def _product(net: Lowering, x: Value, weight: Weight, blocks: int) -> Value:
    batch, length, inner = x.spec.shape
    width = weight.shape[0] // blocks
    rows = net.reshape(x, (1, multiply(batch, length), inner))
    matrices = net.reshape(net.operand(weight, x.spec.dtype, 3), (blocks, width, inner))
    made = net.permute(net.add(MatrixMultiply(transpose_y=True), rows, matrices), (1, 0, 2))
    return net.reshape(made, (batch, length, blocks * width))
