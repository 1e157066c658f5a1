"""Products of a linear layer in the forms for which TensorRT-RTX has fast kernels, where shapes are static; those of
prompts are in `prompts`.

B batch, S rows, K inner size, N columns.
"""

from __future__ import annotations

import torch

from ditto.lowering import Lowering, Operand
from ditto.lowering.arithmetic import binary
from ditto.lowering.linear import linear
from ditto.network.dims import multiply
from ditto.network.graph import Value
from ditto.network.layers import Concatenation, ElementWise, MatrixMultiply, Reduce
from ditto.network.weight import Folded, Literal, Stored, Weight, fold

_aten = torch.ops.aten


# Below this inner size a part of a split product would be too short to be worth its sum.
_SHORTEST_PART = 2048
_PARTS = (4, 2)
# Kernels read as many numbers at once.
ALIGNED = 8


def linear_in_halves(net: Lowering, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    """A linear layer to more columns than it has inputs, as before an activation, whose bias is added to each half of
    them, so that what follows stays outside of the product's kernel: with few rows TensorRT-RTX takes bias and
    activation into it, and then into one that is slower by more than they cost. Measured on an H200, a block of
    CLIP-L/14-336, one picture: 11 us of 98 less; four pictures: 3 us of 233. Where there are as many columns as inputs,
    or fewer, nothing is gained.
    """
    assert net.node is not None
    is_taken_apart = all(user.target == _aten.slice.Tensor for user in net.node.users)
    if not isinstance(bias, (Stored, Literal, Folded)) or is_taken_apart:
        return linear(net, x, weight, bias)
    columns = bias.shape[0]
    if columns % 2 or columns <= weight.shape[-1]:
        return linear(net, x, weight, bias)
    made, half = linear(net, x, weight), columns // 2
    axis, dtype = made.rank - 1, made.spec.dtype
    halves = [
        binary(net, "SUM", net.slice(made, axis, start, half), fold("slice", bias, 0, start, start + half, 1), dtype)
        for start in (0, half)
    ]
    return net.add(Concatenation(axis), *halves)


def linear_of_few_rows(net: Lowering, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    """A linear layer of [B, 1, K], of which TensorRT-RTX has slow kernels: for a single row and many columns, and for
    several rows and few columns."""
    value = net.value(x)
    is_matrix = isinstance(weight, (Stored, Literal, Folded)) and len(weight.shape) == 2
    if not is_matrix or value.rank != 3 or value.spec.shape[1] != 1:
        return linear(net, x, weight, bias)
    columns, inner = weight.shape
    parts = _parts(columns, inner)
    if columns >= 2 * inner:
        made = _with_copies(net, value, weight)
    elif parts > 1:
        made = _in_parts(net, value, weight, parts)
    else:
        return linear(net, x, weight, bias)
    return made if bias is None else binary(net, "SUM", made, bias, made.spec.dtype)


def _with_copies(net: Lowering, x: Value, weight: Weight) -> Value:
    """The product of each row and a copy of it. For a single row TensorRT-RTX takes a kernel that does not use the
    tensor cores: fast for long rows and few columns, slow for many. Measured on an H200, one row: 57 us of 4096 x 22016
    become 48, 33 of 4096 x 12288 become 30; more rows stay as they are."""
    return net.slice(linear(net, net.add(Concatenation(1), x, x), weight), 1, 0, 1)


def _parts(columns: int, inner: int) -> int:
    """In how many parts a product with few columns is computed: what each streaming processor of a GPU gets of its
    matrix at a time is too little to keep the memory busy. Measured on an H200, two and four rows: 40 us of
    11008 x 4096 become 29, and their sum takes 3. Each such product makes the engine compile later."""
    if 2 * columns > inner:
        return 1
    fitting = (parts for parts in _PARTS if inner % (parts * ALIGNED) == 0 and inner // parts >= _SHORTEST_PART)
    return next(fitting, 1)


def _in_parts(net: Lowering, x: Value, weight: Weight, parts: int) -> Value:
    """The product as a sum over `parts` of the inner size. Row and matrix are taken as they lie, [B, K] as
    [B parts, K / parts] and [N, K] as [N parts, K / parts]: the matrix is read once, and of all products of parts with
    parts those of the same number count."""
    batch, _, inner = x.spec.shape
    assert isinstance(inner, int)
    columns, width = weight.shape[0], inner // parts
    rows = net.reshape(x, (multiply(batch, parts), width))
    matrix = net.reshape(net.operand(weight, x.spec.dtype, 3), (columns * parts, width))
    made = net.reshape(net.add(MatrixMultiply(transpose_y=True), rows, matrix), (batch, parts, columns, parts))
    same = net.literal(torch.eye(parts).reshape(1, parts, 1, parts))
    chosen = net.add(ElementWise("PROD"), net.cast(made, torch.float32), same)
    summed = net.add(Reduce("SUM", (1, 3), keep=True), chosen)
    return net.reshape(net.cast(summed, x.spec.dtype), (batch, 1, columns))
