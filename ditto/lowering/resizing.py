"""Lowerings of padding, and of operators that resize the grid of an image: interpolation and pooling.

Resizing is linear along each axis, so it is a matrix multiplication for each, with the matrix that PyTorch itself makes
of the unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ditto.errors import UnsupportedFeature
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.dims import Dim
from ditto.network.graph import Value
from ditto.network.layers import Concatenation, MatrixMultiply

aten = torch.ops.aten


@lowers(aten.pad.default)
def pad(net: Lowering, x: Operand, pad: list[Dim], mode: str = "constant", value: float | None = None) -> Value:
    """pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor"""
    padded = net.value(x)
    if mode != "constant" or any(not isinstance(size, int) or size < 0 for size in pad):
        raise UnsupportedFeature(f"padding by {pad} in the mode {mode!r}", remedy="constant padding is supported")
    sizes: list[Any] = list(pad)
    for axis, before, after in zip(range(padded.rank - 1, -1, -1), sizes[::2], sizes[1::2]):
        parts = [padded]
        if before:
            parts.insert(0, _filled(net, padded, axis, before, value or 0.0))
        if after:
            parts.append(_filled(net, padded, axis, after, value or 0.0))
        padded = net.add(Concatenation(axis), *parts) if len(parts) > 1 else padded
    return padded


def _filled(net: Lowering, like: Value, axis: int, size: int, number: float) -> Value:
    """A tensor of one number, shaped as another one except along an axis."""
    shape = (*like.spec.shape[:axis], size, *like.spec.shape[axis + 1 :])
    zeros = (0,) * like.rank
    return net.box(net.operand(number, like.spec.dtype, like.rank), zeros, shape, zeros)


@lowers(aten.upsample_linear1d.vec)
def upsample_linear1d(
    net: Lowering, x: Operand, output_size: list[Dim] | None, align_corners: bool, scale_factors: list[float] | None
) -> Value:
    """upsample_linear1d.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) ->
    Tensor"""
    return _interpolated(net, x, output_size, scale_factors, mode="bilinear", align_corners=align_corners)


@lowers(aten.upsample_bilinear2d.vec)
def upsample_bilinear2d(
    net: Lowering, x: Operand, output_size: list[Dim] | None, align_corners: bool, scale_factors: list[float] | None
) -> Value:
    """upsample_bilinear2d.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) ->
    Tensor"""
    return _interpolated(net, x, output_size, scale_factors, mode="bilinear", align_corners=align_corners)


@lowers(aten.upsample_bicubic2d.vec)
def upsample_bicubic2d(
    net: Lowering, x: Operand, output_size: list[Dim] | None, align_corners: bool, scale_factors: list[float] | None
) -> Value:
    """upsample_bicubic2d.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) ->
    Tensor"""
    return _interpolated(net, x, output_size, scale_factors, mode="bicubic", align_corners=align_corners)


@lowers(aten._upsample_bicubic2d_aa.vec)
def smoothed_bicubic2d(
    net: Lowering, x: Operand, output_size: list[Dim] | None, align_corners: bool, scale_factors: list[float] | None
) -> Value:
    """_upsample_bicubic2d_aa.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) ->
    Tensor"""
    del output_size
    if scale_factors is not None:
        raise UnsupportedFeature("interpolation by a factor", remedy="interpolation to a size is supported")

    def resize(column: Tensor, size: int) -> Tensor:
        twice = column.expand(-1, -1, -1, 2)  # of a single column, PyTorch computes wrong values
        return functional.interpolate(twice, (size, 2), mode="bicubic", align_corners=align_corners, antialias=True)

    return _resized(net, x, resize)


def _interpolated(
    net: Lowering, x: Operand, output_size: list[Dim] | None, scale_factors: list[float] | None, **how: Any
) -> Value:
    del output_size
    if scale_factors is not None:
        raise UnsupportedFeature("interpolation by a factor", remedy="interpolation to a size is supported")
    return _resized(net, x, lambda column, size: functional.interpolate(column, (size, 1), **how))


@lowers(aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool2d(net: Lowering, x: Operand, output_size: list[Dim]) -> Value:
    """adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor"""
    del output_size
    if net.value(x).rank != 4:
        raise UnsupportedFeature("adaptive pooling of an image without a batch axis")
    return _resized(net, x, lambda column, size: functional.adaptive_avg_pool2d(column, (size, 1)))


def _resized(net: Lowering, x: Operand, resize: Callable[[Tensor, int], Tensor]) -> Value:
    """Resize the axes of a tensor [batch, channels, width] or [batch, channels, height, width] after the first two.

    Args:
        resize: resizes columns [1, channels, size, 1] to another size.
    """
    value = net.cast(net.value(x), torch.float32)  # as PyTorch weighs, and rounded once
    for axis in range(2, value.rank):
        have, want = value.spec.shape[axis], net.result.shape[axis]
        if not isinstance(have, int) or not isinstance(want, int):
            raise UnsupportedFeature("an image of dynamic size is resized")
        shares = resize(torch.eye(have)[None, :, :, None], want)[0, :, :, 0]  # of old indices in new ones
        if have == want and torch.equal(shares, torch.eye(have)):
            continue
        matrix = net.literal(shares.reshape((1,) * (value.rank - 2) + (have, want)))
        if axis == value.rank - 1:
            value = net.add(MatrixMultiply(), value, matrix)
        else:
            value = net.add(MatrixMultiply(transpose_x=True), matrix, value)
    return net.cast(value, net.result.dtype)
