"""Lowerings of reductions along axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.graph import Value
from ditto.network.layers import Reduce

aten = torch.ops.aten


def _reduce(
    net: Lowering,
    op: Literal["SUM", "AVG", "MAX", "MIN"],
    x: Operand,
    axes: Sequence[int] | None,
    keepdim: bool,
    dtype: torch.dtype | None = None,
) -> Value:
    value = net.value(x)
    value = value if dtype is None else net.cast(value, dtype)
    wanted = range(value.rank) if axes is None else sorted(axis % value.rank for axis in axes)
    return net.add(Reduce(op, tuple(wanted), keepdim), value)


@lowers(aten.mean.dim)
def mean(
    net: Lowering, x: Operand, dim: list[int] | None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Value:
    """mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return _reduce(net, "AVG", x, dim, keepdim, dtype)


@lowers(aten.sum.dim_IntList)
def sum_(
    net: Lowering, x: Operand, dim: list[int] | None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Value:
    """sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return _reduce(net, "SUM", x, dim, keepdim, dtype)


@lowers(aten.amax.default)
def amax(net: Lowering, x: Operand, dim: Sequence[int] = (), keepdim: bool = False) -> Value:
    """amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _reduce(net, "MAX", x, dim or None, keepdim)


@lowers(aten.amin.default)
def amin(net: Lowering, x: Operand, dim: Sequence[int] = (), keepdim: bool = False) -> Value:
    """amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _reduce(net, "MIN", x, dim or None, keepdim)
