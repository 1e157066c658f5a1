"""Products of a linear layer in the forms for which TensorRT-RTX has fast kernels, where shapes are static; those of
prompts are in `prompts`.

B batch, K inner size, N columns.
"""

from __future__ import annotations

import torch

from ditto.lowering import Lowering, Operand
from ditto.lowering.arithmetic import binary
from ditto.lowering.linear import linear
from ditto.network.graph import Value
from ditto.network.layers import Concatenation, MatrixMultiply, Reduce
from ditto.network.weight import Folded, Literal, Stored, Weight, fold

_aten = torch.ops.aten


# Below this inner size a part of a product would be too short to be worth its sum.
_SHORTEST_PART = 512
# From so many columns on two parts do.
_MANY_COLUMNS = 8192
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
    if is_taken_apart or not all(isinstance(part, (Stored, Literal, Folded)) for part in (weight, bias)):
        return linear(net, x, weight, bias)
    assert bias is not None
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
    """A linear layer of [B, 1, K] as a sum over parts of the inner size. For a single row TensorRT-RTX takes a kernel
    without tensor cores, and for few columns too few blocks of threads to keep the memory busy; a batch of parts gets a
    kernel with tensor cores, and blocks of threads for each part."""
    value = net.value(x)
    is_matrix = isinstance(weight, (Stored, Literal, Folded)) and len(weight.shape) == 2
    parts = parts_of(*weight.shape) if is_matrix else 1
    if parts == 1 or value.rank != 3 or value.spec.shape[1] != 1:
        return linear(net, x, weight, bias)
    made = product_in_parts(net, value, weight, parts)
    return made if bias is None else binary(net, "SUM", made, bias, made.spec.dtype)


def parts_of(columns: int, inner: int) -> int:
    """In how many parts a product is computed. Measured on an H200, one and four rows, with what adds the parts up
    (benchmarks/NOTES.md): 4096 x 12288 31 and 32 us in two parts instead of 33 and 30, 4096 x 22016 50 and 51 instead
    of 57 and 48, 4096 x 4096 13.8 and 13.7 in four instead of 13.8 and 16.3, 11008 x 4096 28 and 28 instead of 32 and
    40. In the network nothing is left of the sum of few parts: what reads it takes it in."""
    wanted = 2 if columns >= _MANY_COLUMNS else 4
    fitting = (parts for parts in (wanted, 2) if inner % (parts * ALIGNED) == 0 and inner // parts >= _SHORTEST_PART)
    return next(fitting, 1)


def product_in_parts(net: Lowering, x: Value, weight: Weight, parts: int) -> Value:
    """The product as a batch of `parts` products, whose operands TensorRT-RTX reads where they lie, and their sum."""
    batch, _, inner = x.spec.shape
    assert isinstance(inner, int)
    columns, width = weight.shape[0], inner // parts
    rows = net.permute(net.reshape(x, (batch, parts, width)), (1, 0, 2))
    matrix = net.operand(weight, x.spec.dtype, 3)  # as prompts take it: on the GPU it lies once for both
    matrices = net.permute(net.reshape(matrix, (columns, parts, width)), (1, 0, 2))
    made = net.permute(net.add(MatrixMultiply(transpose_y=True), rows, matrices), (1, 0, 2))
    summed = net.add(Reduce("SUM", (1,), keep=True), net.cast(made, torch.float32))
    return net.cast(summed, x.spec.dtype)
