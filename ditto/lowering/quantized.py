"""Matrix multiplications with quantised weights."""

from __future__ import annotations

import torch

from ditto.lowering.lower import Lowering
from ditto.network.graph import Value
from ditto.network.layers import Concatenation, Dequantize, ElementWise, MatrixMultiply, Reduce
from ditto.network.quantized import QuantizedWeight, by_row, quantized_form
from ditto.network.weight import Folded, Weight, fold


def quantized_product(net: Lowering, x: Value, weight: Weight) -> Value | None:
    """x times the transpose of a weight whose integers stay quantised in the engine; None for another weight.

    Rows of the weight that are quantised in another way are products of their own.
    """
    form = _in_columns(quantized_form(weight))
    if form is not None:
        return _product(net, x, form)
    if isinstance(weight, Folded) and weight.op == "concatenate" and weight.operands[1] == 0:
        parts: tuple[Weight, ...] = weight.operands[0]
        if any(_in_columns(quantized_form(part)) is not None for part in parts):
            products = [quantized_product(net, x, part) or _float_product(net, x, part) for part in parts]
            return net.add(Concatenation(x.rank - 1), *products)
    return None


def _in_columns(weight: QuantizedWeight | None) -> QuantizedWeight | None:
    """A weight with scales for rows or for groups of a row's columns; None if it has another form.

    TensorRT-RTX 1.6 stores FP8 constants without quantised activations as float16, and has no form for columns in
    another order than their groups.
    """
    if weight is None or weight.values.dtype != torch.int8 or weight.groups is not None:
        return None
    form, columns = by_row(weight), weight.shape[1]
    return None if form.block[0] != 1 or columns % form.block[1] or (form.bits == 4 and columns % 2) else form


def _product(net: Lowering, x: Value, weight: QuantizedWeight) -> Value:
    """x (values * scales)^T - sums over groups of x (zeros * scales - offsets)^T, which TensorRT has no form for."""
    dtype, (rows, columns) = x.spec.dtype, weight.shape
    values = weight.values if weight.bits == 8 else fold("int4", weight.values)
    scales = weight.scales if weight.scales.dtype == dtype else fold("cast", weight.scales, dtype)
    count = scales.shape[1]
    by_column = scales if count > 1 else fold("reshape", scales, (rows,))
    matrix = net.add(Dequantize(), net.constant(values), net.constant(by_column))
    product = net.add(MatrixMultiply(transpose_y=True), x, _of_rank(net, matrix, x.rank))
    surplus_of_groups = _surplus(weight)
    if surplus_of_groups is None:
        return product
    wide = net.cast(x, torch.float32)
    groups = net.reshape(wide, (*x.spec.shape[:-1], count, columns // count))
    sums = net.add(Reduce("SUM", (x.rank,), keep=False), groups)
    by_group = _of_rank(net, net.constant(surplus_of_groups), x.rank)
    surplus = net.add(MatrixMultiply(transpose_y=True), sums, by_group)
    return net.add(ElementWise("SUB"), product, net.cast(surplus, dtype))


def _surplus(weight: QuantizedWeight) -> Weight | None:
    """What the dequantised integers of each block exceed the matrix by, in float32; None for nothing."""
    exact = [part and fold("cast", part, torch.float32) for part in (weight.zeros, weight.scales, weight.offsets)]
    zeros, scales, offsets = exact
    if zeros is None:
        return offsets and fold("negate", offsets)
    surplus = fold("multiply", zeros, scales)
    return surplus if offsets is None else fold("subtract", surplus, offsets)


def _float_product(net: Lowering, x: Value, weight: Weight) -> Value:
    return net.add(MatrixMultiply(transpose_y=True), x, net.operand(weight, x.spec.dtype, x.rank))


def _of_rank(net: Lowering, matrix: Value, rank: int) -> Value:
    return net.reshape(matrix, (1,) * (rank - 2) + matrix.spec.shape)
