"""Lowerings of activation functions."""

from __future__ import annotations

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.arithmetic import binary
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.graph import Value
from ditto.network.layers import Activation, ElementWise, Select, Softmax, Unary

aten = torch.ops.aten


@lowers(aten.relu.default)
def relu(net: Lowering, x: Operand) -> Value:
    """relu(Tensor self) -> Tensor"""
    return net.add(Activation("RELU"), net.value(x))


@lowers(aten.sigmoid.default)
def sigmoid(net: Lowering, x: Operand) -> Value:
    """sigmoid(Tensor self) -> Tensor"""
    return net.add(Activation("SIGMOID"), net.value(x))


@lowers(aten.tanh.default)
def tanh(net: Lowering, x: Operand) -> Value:
    """tanh(Tensor self) -> Tensor"""
    return net.add(Activation("TANH"), net.value(x))


@lowers(aten.silu.default)
def silu(net: Lowering, x: Operand) -> Value:
    """silu(Tensor self) -> Tensor"""
    value = net.value(x)
    return net.add(ElementWise("PROD"), value, net.add(Activation("SIGMOID"), value))


@lowers(aten.softplus.default)
def softplus(net: Lowering, x: Operand, beta: float = 1, threshold: float = 20) -> Value:
    """softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor"""
    value = net.value(x)
    dtype = value.spec.dtype
    scaled = value if beta == 1 else binary(net, "PROD", value, beta, dtype)
    result = _log_sum(net, scaled) if beta == 1 else binary(net, "DIV", _log_sum(net, scaled), beta, dtype)
    if threshold >= 20:  # beyond it PyTorch returns x, which the result then equals to rounding
        return result
    return net.add(Select(), binary(net, "GREATER", scaled, threshold, dtype), value, result)


@lowers(aten.log_sigmoid.default)
def log_sigmoid(net: Lowering, x: Operand) -> Value:
    """log_sigmoid(Tensor self) -> Tensor"""
    return net.add(Unary("NEG"), _log_sum(net, net.add(Unary("NEG"), net.value(x))))


def _log_sum(net: Lowering, x: Value) -> Value:
    """log(1 + exp(x)) in a form that does not overflow: max(x, 0) + log(1 + exp(-|x|))."""
    small = net.add(Unary("EXP"), net.add(Unary("NEG"), net.add(Unary("ABS"), x)))
    rest = net.add(Unary("LOG"), binary(net, "SUM", small, 1, x.spec.dtype))
    return net.add(ElementWise("SUM"), net.add(Activation("RELU"), x), rest)


@lowers(aten.gelu.default)
def gelu(net: Lowering, x: Operand, approximate: str = "none") -> Value:
    """gelu(Tensor self, *, str approximate="none") -> Tensor"""
    if approximate not in ("none", "tanh"):
        raise UnsupportedFeature(f"GELU with approximation {approximate!r}")
    return net.add(Activation("GELU_TANH" if approximate == "tanh" else "GELU_ERF"), net.value(x))


@lowers(aten.softmax.int)
def softmax(net: Lowering, x: Operand, dim: int, dtype: torch.dtype | None = None) -> Value:
    """softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor"""
    value = net.value(x) if dtype is None else net.cast(net.value(x), dtype)
    return net.add(Softmax(axis=dim % value.rank), value)
