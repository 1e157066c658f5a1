"""Lowerings of activation functions."""

from __future__ import annotations

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.graph import Value
from ditto.network.layers import Activation, ElementWise, Softmax

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
