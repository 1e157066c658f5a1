"""Products of a linear layer in the forms for which TensorRT-RTX has fast kernels, where shapes are static.

B batch, S rows, K inner size, N columns.
"""

from __future__ import annotations

import torch

from ditto.lowering import Lowering, Operand
from ditto.lowering.arithmetic import binary
from ditto.lowering.linear import linear
from ditto.network.graph import Value
from ditto.network.layers import Concatenation
from ditto.network.weight import Folded, Literal, Stored, fold

_aten = torch.ops.aten


def linear_in_halves(net: Lowering, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    """A linear layer whose bias is added to each half of the columns, so that what follows stays outside of the
    product's kernel: with few rows TensorRT-RTX takes bias, activation and residual sum into it, and then into one that
    is slower by more than they cost. Measured on an H200, a block of CLIP-L/14-336, one picture: 11 us of 98 less; four
    pictures, which it leaves apart by itself: the same.
    """
    assert net.node is not None
    is_taken_apart = all(user.target == _aten.slice.Tensor for user in net.node.users)
    if not isinstance(bias, (Stored, Literal, Folded)) or bias.shape[0] % 2 or is_taken_apart:
        return linear(net, x, weight, bias)
    made, half = linear(net, x, weight), bias.shape[0] // 2
    axis, dtype = made.rank - 1, made.spec.dtype
    halves = [
        binary(net, "SUM", net.slice(made, axis, start, half), fold("slice", bias, 0, start, start + half, 1), dtype)
        for start in (0, half)
    ]
    return net.add(Concatenation(axis), *halves)


def linear_of_one_row(net: Lowering, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    """A linear layer of [B, 1, K]; where there are many columns, of each row and a copy of it. For a single row
    TensorRT-RTX takes a kernel that does not use the tensor cores: fast for long rows and few columns, slow for many.
    Measured on an H200, one row: 57 us of 4096 x 22016 become 48, 33 of 4096 x 12288 become 30; more rows stay as they
    are.
    """
    value = net.value(x)
    is_matrix = isinstance(weight, (Stored, Literal, Folded)) and len(weight.shape) == 2
    if not is_matrix or value.rank != 3 or value.spec.shape[1] != 1 or weight.shape[0] < 2 * weight.shape[1]:
        return linear(net, x, weight, bias)
    made = linear(net, net.add(Concatenation(1), value, value), weight)
    first = net.slice(made, 1, 0, 1)
    return first if bias is None else binary(net, "SUM", first, bias, first.spec.dtype)
