"""Lowerings of mixtures of experts to matrix multiplications.

T tokens, E experts, k choices of each token, I inner width, W hidden width.

Two forms. All experts: each weight is read once, and every token is multiplied with every expert, E / k times more than
needed. Chosen experts: their weights are gathered for each token, which takes longer than reading them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch._ops import OpOverload

from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import LoweringFunction, lowers
from ditto.network.dims import multiply
from ditto.network.graph import Value
from ditto.network.layers import ElementWise, Gather, MatrixMultiply, Reduce
from ditto.network.weight import Weight, fold

_ops = torch.ops.ditto

# Time to gather weights and sum up their products, in times to read them: 115 us to 12 us on H200 for 8 matrices of
# 1536 by 2048 in float16.
_GATHER_COST = 10


@lowers(_ops.expert_linear.default)
def expert_linear(
    net: Lowering, x: Operand, weight: Operand, bias: Operand | None, experts: Operand, transposed: bool
) -> Value:
    """ditto::expert_linear(Tensor x, Tensor weight, Tensor? bias, Tensor experts, bool transposed) -> Tensor"""
    value, chosen = net.value(x), net.value(experts)
    tokens, width = value.spec.shape
    if transposed:
        product = net.add(MatrixMultiply(), net.reshape(value, (1, tokens, width)), net.value(weight))
        product = net.permute(product, (1, 0, 2))
    else:
        count, inner, _ = _shape(weight)
        product = net.add(MatrixMultiply(transpose_y=True), value, _rows(net, weight))
        product = net.reshape(product, (tokens, count, inner))
    return _with_bias(net, net.add(Gather(axis=1, batch_axes=1), product, chosen), bias, chosen)


@lowers(_ops.expert_sum.default)
def expert_sum(
    net: Lowering,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    experts: Operand,
    shares: Operand,
    transposed: bool,
) -> Value:
    """ditto::expert_sum(Tensor x, Tensor weight, Tensor? bias, Tensor experts, Tensor shares, bool transposed) ->
    Tensor"""
    value, chosen = net.value(x), net.value(experts)
    count, (tokens, _, inner) = _shape(weight)[0], value.spec.shape
    by_expert = _shares_by_expert(net, chosen, net.value(shares), count, value.spec.dtype)
    spread = net.add(MatrixMultiply(transpose_x=True), by_expert, value)  # [T, E, I], 0 for experts that are not chosen
    spread = net.reshape(spread, (tokens, multiply(count, inner)))
    product = net.add(MatrixMultiply(), spread, _columns(net, weight, transposed))
    if bias is None:
        return product
    total = net.add(Reduce("SUM", (1,), keep=False), by_expert)
    return net.add(ElementWise("SUM"), product, net.add(MatrixMultiply(), total, net.value(bias)))


def _shares_by_expert(net: Lowering, chosen: Value, shares: Value, count: int, dtype: torch.dtype) -> Value:
    """Each choice's share in the column of its expert: [T, k, E]."""
    (tokens, choices), kind = chosen.spec.shape, chosen.spec.dtype
    numbers = net.literal(torch.arange(count, dtype=kind).reshape(1, 1, count))
    is_chosen = net.add(ElementWise("EQUAL"), net.reshape(chosen, (tokens, choices, 1)), numbers)
    shares = net.reshape(net.cast(shares, dtype), (tokens, choices, 1))
    return net.add(ElementWise("PROD"), net.cast(is_chosen, dtype), shares)


def experts_of_few(tokens: int) -> Mapping[OpOverload, LoweringFunction]:
    """Lowerings for at most so many tokens.

    They read the weights of chosen experts only where that takes less time than reading those of all experts.
    """

    def is_few(experts: Operand, weight: Operand) -> bool:
        choices = experts.spec.shape[1] if isinstance(experts, Value) else experts.shape[1]  # type: ignore[union-attr]
        return _GATHER_COST * tokens * int(choices) <= _shape(weight)[0]  # type: ignore[arg-type]

    def linear(net: Lowering, x: Operand, weight: Operand, bias: Any, experts: Operand, transposed: bool) -> Value:
        form = _chosen_linear if is_few(experts, weight) else expert_linear
        return form(net, x, weight, bias, experts, transposed)

    def sum_(net: Lowering, x: Operand, weight: Operand, bias: Any, experts: Operand, *more: Any) -> Value:
        return (_chosen_sum if is_few(experts, weight) else expert_sum)(net, x, weight, bias, experts, *more)

    return {_ops.expert_linear.default: linear, _ops.expert_sum.default: sum_}


def _chosen_linear(
    net: Lowering, x: Operand, weight: Operand, bias: Operand | None, experts: Operand, transposed: bool
) -> Value:
    value, chosen = net.value(x), net.value(experts)
    tokens, width = value.spec.shape
    product = _times_chosen(net, net.reshape(value, (tokens, 1, width)), weight, chosen, transposed)
    return _with_bias(net, product, bias, chosen)


def _chosen_sum(
    net: Lowering,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    experts: Operand,
    shares: Operand,
    transposed: bool,
) -> Value:
    value, chosen = net.value(x), net.value(experts)
    product = _with_bias(net, _times_chosen(net, value, weight, chosen, transposed), bias, chosen)
    wide = net.cast(net.value(shares), torch.float32)
    weighted = net.add(ElementWise("PROD"), net.cast(product, torch.float32), net.reshape(wide, (*wide.spec.shape, 1)))
    return net.cast(net.add(Reduce("SUM", (1,), keep=False), weighted), value.spec.dtype)


def _times_chosen(net: Lowering, x: Value, weight: Operand, chosen: Value, transposed: bool) -> Value:
    """Products of rows [T, k or 1, in] with the matrices of chosen experts, in float32: [T, k, out]."""
    matrices = net.cast(net.add(Gather(axis=0), net.value(weight), chosen), torch.float32)
    tokens, rows, width = x.spec.shape
    shape = (tokens, rows, width, 1) if transposed else (tokens, rows, 1, width)
    wide = net.reshape(net.cast(x, torch.float32), shape)
    axis = 2 if transposed else 3
    return net.cast(
        net.add(Reduce("SUM", (axis,), keep=False), net.add(ElementWise("PROD"), matrices, wide)), x.spec.dtype
    )


def _with_bias(net: Lowering, product: Value, bias: Operand | None, chosen: Value) -> Value:
    if bias is None:
        return product
    return net.add(ElementWise("SUM"), product, net.add(Gather(axis=0), net.value(bias), chosen))


def _rows(net: Lowering, weight: Operand) -> Value:
    """Weights [E, out, in] of all experts as the rows of one matrix."""
    count, rows, width = _shape(weight)
    if isinstance(weight, Weight):
        return net.constant(fold("reshape", weight, (count * rows, width)))
    return net.reshape(net.value(weight), (count * rows, width))


def _columns(net: Lowering, weight: Operand, transposed: bool) -> Value:
    """Weights [E, out, in], or [E, in, out] if transposed, as one matrix [E * in, out]."""
    count, rows, width = _shape(weight)
    if not isinstance(weight, Weight):
        value = net.value(weight) if transposed else net.permute(net.value(weight), (0, 2, 1))
        return net.reshape(value, (count * int(value.spec.shape[1]), value.spec.shape[2]))  # type: ignore[arg-type]
    columns = weight if transposed else fold("permute", weight, (0, 2, 1))
    return net.constant(fold("reshape", columns, (count * (rows if transposed else width), columns.shape[2])))


def _shape(weight: Operand) -> tuple[int, int, int]:
    shape = weight.spec.shape if isinstance(weight, Value) else weight.shape  # type: ignore[union-attr]
    count, rows, width = (int(size) for size in shape)  # type: ignore[arg-type]
    return count, rows, width
