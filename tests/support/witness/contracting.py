"""Meaning of layers that sum over axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorrt_rtx as trt
import torch
from torch import Tensor

from tests.support.witness.reading import Reading, axes_of, numbers, wide


def _product(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


_REDUCE: Mapping[Any, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    trt.ReduceOperation.SUM: lambda x, axes: x.sum(axes, keepdim=True),
    trt.ReduceOperation.AVG: lambda x, axes: x.mean(axes, keepdim=True),
    trt.ReduceOperation.MAX: lambda x, axes: x.amax(axes, keepdim=True),
    trt.ReduceOperation.MIN: lambda x, axes: x.amin(axes, keepdim=True),
    trt.ReduceOperation.PROD: _product,
}


def _axes(layer: Reading, x: Tensor) -> tuple[int, ...]:
    axes = axes_of(layer.get("axes"))
    return axes if axes and axes[-1] < x.dim() else layer.fail(f"axes {axes} of {list(x.shape)}")


def reduce(layer: Reading) -> Tensor:
    """IReduceLayer."""
    x, op = layer.input(0), layer.get("op")
    axes = _axes(layer, x)
    function = _REDUCE.get(op) or layer.fail(f"op {op} is not known to the witness")
    reduced = function(wide(x), axes).to(x.dtype)
    return reduced if layer.get("keep_dims") else reduced.squeeze(axes)


def softmax(layer: Reading) -> Tensor:
    """ISoftMaxLayer: over one axis, given as a bit mask."""
    x = layer.input(0)
    axes = _axes(layer, x)
    if len(axes) != 1:
        layer.fail(f"axes {axes}: more than one")
    return wide(x).softmax(axes[0]).to(x.dtype)


def normalization(layer: Reading) -> Tensor:
    """INormalizationLayer, second form: (x - mean) / sqrt(variance + epsilon) * scale + bias over a mask of axes; scale
    and bias have x's rank and are broadcast to it."""
    x, scale, bias = (layer.input(index) for index in range(3))
    layer.alike(x, scale, bias, rank=True)
    layer.expect("is_v2", True)
    layer.expect("num_groups", 1)
    if scale.shape != bias.shape or torch.broadcast_shapes(scale.shape, x.shape) != x.shape:
        layer.fail(f"scale {list(scale.shape)} and bias {list(bias.shape)} of {list(x.shape)}")
    axes = _axes(layer, x)
    centred = wide(x) - wide(x).mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    return (centred / torch.sqrt(variance + layer.get("epsilon")) * wide(scale) + wide(bias)).to(x.dtype)


def matrix_multiply(layer: Reading) -> Tensor:
    """IMatrixMultiplyLayer: equal ranks, leading axes broadcast, TRANSPOSE swaps the last two."""
    operands = []
    for index in range(2):
        x, op = layer.input(index), layer.get(f"op{index}")
        if op not in (trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE) or x.dim() < 2:
            layer.fail(f"op{index} {op} of {list(x.shape)} is not known to the witness")
        operands.append(x.transpose(-1, -2) if op == trt.MatrixOperation.TRANSPOSE else x)
    layer.alike(*operands, rank=True)
    a, b = operands
    return (wide(a) @ wide(b)).to(a.dtype)


def convolution(layer: Reading) -> Tensor:
    """IConvolutionLayer over the axes after the second, in PyTorch's layout. Kernel and bias are inputs 1 and 2, or
    properties; padding with zeros."""
    x, kernel, bias = layer.input(0), layer.optional(1), layer.optional(2)
    window, maps, groups = tuple(layer.get("kernel_size_nd")), layer.get("num_output_maps"), layer.get("num_groups")
    static_kernel, static_bias = numbers(layer.get("kernel")), numbers(layer.get("bias"))
    wanted = (maps, x.shape[1] // groups, *window)
    kernel = static_kernel.reshape(wanted) if kernel is None else kernel
    if bias is None and static_bias.numel():
        bias = static_bias
    layer.expect("padding_mode", trt.PaddingMode.EXPLICIT_ROUND_DOWN)
    padding = tuple(layer.get("padding_nd"))
    layer.expect("pre_padding", padding)
    layer.expect("post_padding", padding)
    stride, dilation = tuple(layer.get("stride_nd")), tuple(layer.get("dilation_nd"))
    layer.alike(x, kernel, bias)
    if tuple(kernel.shape) != wanted or len(window) != 2 or (bias is not None and tuple(bias.shape) != (maps,)):
        layer.fail(f"kernel {list(kernel.shape)} where {wanted} belongs")
    bias = None if bias is None else wide(bias)
    return torch.nn.functional.conv2d(wide(x), wide(kernel), bias, stride, padding, dilation, groups).to(x.dtype)
