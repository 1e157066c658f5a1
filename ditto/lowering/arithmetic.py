"""Lowerings of elementwise arithmetic, comparison and selection."""

from __future__ import annotations

from typing import Any

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.dims import DimExpr
from ditto.network.graph import Value
from ditto.network.layers import Cast, ElementWise, Select, Unary
from ditto.network.layers.elementwise import ElementWiseOp, UnaryOp
from ditto.network.weight import Weight

aten = torch.ops.aten


def binary(net: Lowering, op: ElementWiseOp, x: Operand, y: Operand, dtype: torch.dtype) -> Value:
    """Add a binary `op` of two operands, cast to `dtype` and extended to equal rank."""
    rank = max(rank_of(x), rank_of(y))
    return net.add(ElementWise(op), net.operand(x, dtype, rank), net.operand(y, dtype, rank))


def unary(net: Lowering, op: UnaryOp, x: Operand) -> Value:
    """Add a unary `op` of an operand; integers are cast to the result's dtype, as in PyTorch."""
    return net.add(Unary(op), net.cast(net.value(x), net.result.dtype))


def rank_of(operand: Operand) -> int:
    """The rank of an operand."""
    if isinstance(operand, Value):
        return operand.rank
    return len(operand.shape) if isinstance(operand, Weight) else 0


def _common_dtype(*operands: Operand) -> torch.dtype:
    """The promoted dtype in which PyTorch compares operands."""

    def sample(operand: Operand) -> Any:
        if isinstance(operand, Value):
            return torch.empty((1,) * operand.rank, dtype=operand.spec.dtype)
        if isinstance(operand, Weight):
            return torch.empty((1,) * len(operand.shape), dtype=operand.dtype)
        return 0 if isinstance(operand, DimExpr) else operand

    x, y = (sample(operand) for operand in operands)
    return torch.result_type(x, y)


def _scaled(net: Lowering, y: Operand, alpha: float) -> Operand:
    return y if alpha == 1 else binary(net, "PROD", y, alpha, net.result.dtype)


@lowers(aten.add.Tensor)
def add(net: Lowering, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    return binary(net, "SUM", x, _scaled(net, y, alpha), net.result.dtype)


@lowers(aten.sub.Tensor)
def sub(net: Lowering, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    return binary(net, "SUB", x, _scaled(net, y, alpha), net.result.dtype)


@lowers(aten.rsub.Scalar)
def rsub(net: Lowering, x: Operand, other: float, alpha: float = 1) -> Value:
    """rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    return binary(net, "SUB", other, _scaled(net, x, alpha), net.result.dtype)


@lowers(aten.mul.Tensor)
def mul(net: Lowering, x: Operand, y: Operand) -> Value:
    """mul.Tensor(Tensor self, Tensor other) -> Tensor"""
    return binary(net, "PROD", x, y, net.result.dtype)


@lowers(aten.div.Tensor)
def div(net: Lowering, x: Operand, y: Operand) -> Value:
    """div.Tensor(Tensor self, Tensor other) -> Tensor"""
    return binary(net, "DIV", x, y, net.result.dtype)


@lowers(aten.div.Tensor_mode)
def div_mode(net: Lowering, x: Operand, y: Operand, rounding_mode: str | None) -> Value:
    """div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor"""
    if rounding_mode == "floor":
        return binary(net, "FLOOR_DIV", x, y, net.result.dtype)
    if rounding_mode is None or not net.result.dtype.is_floating_point:
        return binary(net, "DIV", x, y, net.result.dtype)
    raise UnsupportedFeature(f"floating division with rounding mode {rounding_mode!r}")


@lowers(aten.floor_divide.default)
def floor_divide(net: Lowering, x: Operand, y: Operand) -> Value:
    """floor_divide(Tensor self, Tensor other) -> Tensor"""
    return binary(net, "FLOOR_DIV", x, y, net.result.dtype)


@lowers(aten.pow.Tensor_Scalar)
def pow_scalar(net: Lowering, x: Operand, exponent: float) -> Value:
    """pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor"""
    if exponent == 2:
        return binary(net, "PROD", x, x, net.result.dtype)
    if exponent == -0.5:
        return rsqrt(net, x)
    if exponent == 0.5:
        return unary(net, "SQRT", x)
    return binary(net, "POW", x, exponent, net.result.dtype)


@lowers(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow_(net: Lowering, self: Operand, exponent: Operand) -> Value:
    """pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor"""
    if not net.result.dtype.is_floating_point:
        raise UnsupportedFeature("powers of integers")
    return binary(net, "POW", self, exponent, net.result.dtype)


@lowers(aten.square.default)
def square(net: Lowering, x: Operand) -> Value:
    """square(Tensor self) -> Tensor"""
    return pow_scalar(net, x, 2)


@lowers(aten.maximum.default, aten.max.other)
def maximum(net: Lowering, x: Operand, y: Operand) -> Value:
    """maximum(Tensor self, Tensor other) -> Tensor"""
    return binary(net, "MAX", x, y, net.result.dtype)


@lowers(aten.minimum.default, aten.min.other)
def minimum(net: Lowering, x: Operand, y: Operand) -> Value:
    """minimum(Tensor self, Tensor other) -> Tensor"""
    return binary(net, "MIN", x, y, net.result.dtype)


@lowers(aten.clamp.default, aten.clip.default)
def clamp(net: Lowering, x: Operand, min: float | None = None, max: float | None = None) -> Value:  # noqa: A002
    """clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"""
    value = net.cast(net.value(x), net.result.dtype)
    if min is not None:
        value = binary(net, "MAX", value, min, net.result.dtype)
    return value if max is None else binary(net, "MIN", value, max, net.result.dtype)


@lowers(aten.clamp.Tensor)
def clamp_tensor(
    net: Lowering,
    x: Operand,
    min: Operand | None = None,  # noqa: A002
    max: Operand | None = None,  # noqa: A002
) -> Value:
    """clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor"""
    dtype = net.result.dtype
    value: Operand = x
    if min is not None:
        value = binary(net, "MAX", value, min, dtype)
    return net.cast(net.value(value), dtype) if max is None else binary(net, "MIN", value, max, dtype)


@lowers(aten.neg.default)
def neg(net: Lowering, x: Operand) -> Value:
    """neg(Tensor self) -> Tensor"""
    return unary(net, "NEG", x)


@lowers(aten.abs.default)
def abs_(net: Lowering, x: Operand) -> Value:
    """abs(Tensor self) -> Tensor"""
    return unary(net, "ABS", x)


@lowers(aten.exp.default)
def exp(net: Lowering, x: Operand) -> Value:
    """exp(Tensor self) -> Tensor"""
    return unary(net, "EXP", x)


@lowers(aten.expm1.default)
def expm1(net: Lowering, x: Operand) -> Value:
    """expm1(Tensor self) -> Tensor"""
    return binary(net, "SUB", unary(net, "EXP", x), 1, net.result.dtype)


@lowers(aten.log1p.default)
def log1p(net: Lowering, x: Operand) -> Value:
    """log1p(Tensor self) -> Tensor"""
    return net.add(Unary("LOG"), binary(net, "SUM", x, 1, net.result.dtype))


@lowers(aten.log.default)
def log(net: Lowering, x: Operand) -> Value:
    """log(Tensor self) -> Tensor"""
    return unary(net, "LOG", x)


@lowers(aten.sqrt.default)
def sqrt(net: Lowering, x: Operand) -> Value:
    """sqrt(Tensor self) -> Tensor"""
    return unary(net, "SQRT", x)


@lowers(aten.rsqrt.default)
def rsqrt(net: Lowering, x: Operand) -> Value:
    """rsqrt(Tensor self) -> Tensor"""
    return net.add(Unary("RECIP"), unary(net, "SQRT", x))


@lowers(aten.reciprocal.default)
def reciprocal(net: Lowering, x: Operand) -> Value:
    """reciprocal(Tensor self) -> Tensor"""
    return unary(net, "RECIP", x)


@lowers(aten.sin.default)
def sin(net: Lowering, x: Operand) -> Value:
    """sin(Tensor self) -> Tensor"""
    return unary(net, "SIN", x)


@lowers(aten.cos.default)
def cos(net: Lowering, x: Operand) -> Value:
    """cos(Tensor self) -> Tensor"""
    return unary(net, "COS", x)


@lowers(aten.floor.default)
def floor(net: Lowering, x: Operand) -> Value:
    """floor(Tensor self) -> Tensor"""
    value = net.value(x)
    return net.add(Unary("FLOOR"), value) if value.spec.dtype.is_floating_point else value


@lowers(aten.erf.default)
def erf(net: Lowering, x: Operand) -> Value:
    """erf(Tensor self) -> Tensor"""
    return unary(net, "ERF", x)


@lowers(aten.to.dtype)
def to_dtype(net: Lowering, x: Operand, dtype: torch.dtype) -> Value:
    """to.dtype(Tensor(a) self, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat?
    memory_format=None) -> Tensor(a)"""
    return net.add(Cast(dtype), net.value(x))


@lowers(aten.eq.Tensor, aten.eq.Scalar)
def eq(net: Lowering, x: Operand, other: Operand) -> Value:
    """eq.Tensor(Tensor self, Tensor other) -> Tensor"""
    return binary(net, "EQUAL", x, other, _common_dtype(x, other))


@lowers(aten.ne.Tensor, aten.ne.Scalar)
def ne(net: Lowering, x: Operand, other: Operand) -> Value:
    """ne.Tensor(Tensor self, Tensor other) -> Tensor"""
    return net.add(Unary("NOT"), eq(net, x, other))


@lowers(aten.gt.Tensor, aten.gt.Scalar)
def gt(net: Lowering, x: Operand, other: Operand) -> Value:
    """gt.Tensor(Tensor self, Tensor other) -> Tensor"""
    return binary(net, "GREATER", x, other, _common_dtype(x, other))


@lowers(aten.lt.Tensor, aten.lt.Scalar)
def lt(net: Lowering, x: Operand, other: Operand) -> Value:
    """lt.Tensor(Tensor self, Tensor other) -> Tensor"""
    return binary(net, "LESS", x, other, _common_dtype(x, other))


@lowers(aten.le.Tensor, aten.le.Scalar)
def le(net: Lowering, x: Operand, other: Operand) -> Value:
    """le.Tensor(Tensor self, Tensor other) -> Tensor"""
    return net.add(Unary("NOT"), gt(net, x, other))


@lowers(aten.ge.Tensor, aten.ge.Scalar)
def ge(net: Lowering, x: Operand, other: Operand) -> Value:
    """ge.Tensor(Tensor self, Tensor other) -> Tensor"""
    return net.add(Unary("NOT"), lt(net, x, other))


@lowers(aten.logical_and.default, aten.__and__.Tensor, aten.bitwise_and.Tensor)
def logical_and(net: Lowering, x: Operand, y: Operand) -> Value:
    """logical_and(Tensor self, Tensor other) -> Tensor"""
    return _logical(net, "AND", x, y)


@lowers(aten.logical_or.default, aten.__or__.Tensor, aten.bitwise_or.Tensor)
def logical_or(net: Lowering, x: Operand, y: Operand) -> Value:
    """logical_or(Tensor self, Tensor other) -> Tensor"""
    return _logical(net, "OR", x, y)


@lowers(aten.logical_not.default, aten.bitwise_not.default)
def logical_not(net: Lowering, x: Operand) -> Value:
    """logical_not(Tensor self) -> Tensor"""
    value = net.value(x)
    if value.spec.dtype != torch.bool:
        raise UnsupportedFeature(f"a logical operator on {value.spec.dtype}")
    return net.add(Unary("NOT"), value)


def _logical(net: Lowering, op: ElementWiseOp, x: Operand, y: Operand) -> Value:
    if net.result.dtype != torch.bool or _common_dtype(x, y) != torch.bool:
        raise UnsupportedFeature(f"a bitwise operator on {_common_dtype(x, y)}")
    return binary(net, op, x, y, torch.bool)


@lowers(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar)
def where(net: Lowering, condition: Operand, self: Operand, other: Operand) -> Value:
    """where.self(Tensor condition, Tensor self, Tensor other) -> Tensor"""
    rank, dtype = max(map(rank_of, (condition, self, other))), net.result.dtype
    chosen = (net.operand(operand, dtype, rank) for operand in (self, other))
    return net.add(Select(), net.operand(condition, torch.bool, rank), *chosen)


@lowers(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(net: Lowering, x: Operand, mask: Operand, value: Operand) -> Value:
    """masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor"""
    return where(net, mask, value, x)
