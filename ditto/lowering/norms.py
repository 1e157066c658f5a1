"""Lowerings of normalization."""

from __future__ import annotations

from typing import Any

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.graph import Value
from ditto.network.layers import ElementWise, Normalization, Reduce, Unary

aten = torch.ops.aten


@lowers(aten.layer_norm.default)
def layer_norm(
    net: Lowering,
    x: Operand,
    normalized_shape: list[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Value:
    """layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float
    eps=1.0000000000000001e-05, bool cudnn_enable=True) -> Tensor"""
    del cudnn_enable
    value = net.value(x)
    axes = tuple(range(value.rank - len(normalized_shape), value.rank))
    width = (1,) * axes[0] + tuple(normalized_shape)

    def affine(given: Operand | None, otherwise: float) -> Value:
        if given is None:
            return net.literal(torch.full(width, otherwise, dtype=value.spec.dtype))
        return net.operand(given, value.spec.dtype, value.rank)

    return net.add(Normalization(axes, eps), value, affine(weight, 1.0), affine(bias, 0.0))


@lowers(aten.batch_norm.default)
def batch_norm(
    net: Lowering,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    running_mean: Operand | None,
    running_var: Operand | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Value:
    """batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training,
    float momentum, float eps, bool cudnn_enabled) -> Tensor"""
    del momentum, cudnn_enabled
    if training or running_mean is None or running_var is None:
        raise UnsupportedFeature("a batch norm by the statistics of the batch", remedy="call `model.eval()` first")
    value = net.value(x)
    shape = (1, value.spec.shape[1], *(1,) * (value.rank - 2))

    def by_channel(given: Operand) -> Value:
        return net.reshape(net.cast(net.value(given), torch.float32), shape)

    shifted = net.add(ElementWise("SUM"), by_channel(running_var), net.operand(eps, torch.float32, value.rank))
    wide = net.add(ElementWise("SUB"), net.cast(value, torch.float32), by_channel(running_mean))
    result = net.add(ElementWise("DIV"), wide, net.add(Unary("SQRT"), shifted))
    if weight is not None:
        result = net.add(ElementWise("PROD"), result, by_channel(weight))
    if bias is not None:
        result = net.add(ElementWise("SUM"), result, by_channel(bias))
    return net.cast(result, value.spec.dtype)


@lowers(aten.rms_norm.default)
def plain_rms_norm(
    net: Lowering, x: Operand, normalized_shape: list[int], weight: Any = None, eps: float | None = None
) -> Value:
    """rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, float? eps=None) -> Tensor"""
    value = net.value(x)
    if len(normalized_shape) != 1:
        raise UnsupportedFeature("an RMS norm over several axes")
    dtype = value.spec.dtype
    given = net.literal(torch.ones(normalized_shape, dtype=dtype)) if weight is None else weight
    return rms_norm(net, value, given, torch.finfo(dtype).eps if eps is None else eps)


@lowers(torch.ops.ditto.rms_norm.default)
def rms_norm(net: Lowering, x: Operand, weight: Any, epsilon: float) -> Value:
    """ditto::rms_norm(Tensor x, Tensor weight, float epsilon) -> Tensor"""
    value = net.value(x)
    wide = net.cast(value, torch.float32)
    square = net.add(ElementWise("PROD"), wide, wide)
    mean = net.add(Reduce("AVG", (value.rank - 1,), keep=True), square)
    shifted = net.add(ElementWise("SUM"), mean, net.operand(epsilon, torch.float32, value.rank))
    quotient = net.add(ElementWise("DIV"), wide, net.add(Unary("SQRT"), shifted))
    dtype = weight.spec.dtype if isinstance(weight, Value) else weight.dtype
    scaled = net.add(ElementWise("PROD"), net.cast(quotient, dtype), net.operand(weight, dtype, value.rank))
    return net.cast(scaled, value.spec.dtype)
