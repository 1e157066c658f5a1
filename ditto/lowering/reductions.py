"""Lowerings of reductions along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.graph import Value
from ditto.network.layers import ElementWise, Reduce, Unary

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


@lowers(aten.linalg_vector_norm.default)
def vector_norm(
    net: Lowering,
    x: Operand,
    ord: float = 2,  # noqa: A002
    dim: list[int] | None = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Value:
    """linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None)
    -> Tensor"""
    if ord not in (1, 2):
        raise UnsupportedFeature(f"a norm of order {ord}")
    # In float32, as PyTorch sums: squares of half-precision numbers overflow.
    value = net.cast(net.value(x) if dtype is None else net.cast(net.value(x), dtype), torch.float32)
    axes = range(value.rank) if dim is None else sorted(axis % value.rank for axis in dim)
    inner = net.add(Unary("ABS"), value) if ord == 1 else net.add(ElementWise("PROD"), value, value)
    total = net.add(Reduce("SUM", tuple(axes), keepdim), inner)
    return net.cast(total if ord == 1 else net.add(Unary("SQRT"), total), net.result.dtype)


@lowers(aten.std.dim)
def std(net: Lowering, x: Operand, dim: list[int] | None, unbiased: bool = True, keepdim: bool = False) -> Value:
    """std.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor"""
    value = net.cast(net.value(x), torch.float32)  # as PyTorch does, whatever the dtype
    axes = tuple(range(value.rank)) if not dim else tuple(sorted(axis % value.rank for axis in dim))
    sizes = [value.spec.shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedFeature("a standard deviation along an axis whose size is chosen at run time")
    count = math.prod(int(size) for size in sizes)  # type: ignore[arg-type]
    centred = net.add(ElementWise("SUB"), value, net.add(Reduce("AVG", axes, keep=True), value))
    squares = net.add(Reduce("SUM", axes, keepdim), net.add(ElementWise("PROD"), centred, centred))
    divisor = net.operand(count - 1 if unbiased else count, torch.float32, squares.rank)
    return net.cast(net.add(Unary("SQRT"), net.add(ElementWise("DIV"), squares, divisor)), net.result.dtype)


@lowers(aten.amax.default)
def amax(net: Lowering, x: Operand, dim: Sequence[int] = (), keepdim: bool = False) -> Value:
    """amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _reduce(net, "MAX", x, dim or None, keepdim)


@lowers(aten.amin.default)
def amin(net: Lowering, x: Operand, dim: Sequence[int] = (), keepdim: bool = False) -> Value:
    """amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _reduce(net, "MIN", x, dim or None, keepdim)


@lowers(aten.avg_pool2d.default)
def avg_pool2d(
    net: Lowering,
    x: Operand,
    kernel_size: list[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False,
    bool count_include_pad=True, int? divisor_override=None) -> Tensor
    """
    del count_include_pad  # without padding there is nothing to count
    value = net.value(x)
    *leading, height, width = value.spec.shape
    rows, columns = kernel_size[0], kernel_size[-1]
    if not (isinstance(height, int) and isinstance(width, int)) or height % rows or width % columns:
        raise UnsupportedFeature("average pooling of images that its windows do not cover")
    if [*(stride or kernel_size)] != kernel_size or any(padding) or divisor_override is not None:
        raise UnsupportedFeature("average pooling whose windows overlap")
    del ceil_mode  # all windows are whole
    split = net.reshape(value, (*leading, height // rows, rows, width // columns, columns))
    return net.add(Reduce("AVG", (len(leading) + 1, len(leading) + 3), False), split)
