"""Lowerings of matrix multiplications and convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.arithmetic import binary, rank_of
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.quantized import quantized_product
from ditto.lowering.registry import lowers
from ditto.network import dims
from ditto.network.dims import Dim
from ditto.network.graph import Value
from ditto.network.layers import Convolution, MatrixMultiply
from ditto.network.weight import Weight, fold

aten = torch.ops.aten


@lowers(aten.linear.default)
def linear(net: Lowering, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    """linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    value = net.value(x)
    if value.rank < 2:
        raise UnsupportedFeature("a linear layer of a vector")
    product = quantized_product(net, value, weight) if isinstance(weight, Weight) else None
    if product is None:
        product = net.add(MatrixMultiply(transpose_y=True), value, net.operand(weight, value.spec.dtype, value.rank))
    return product if bias is None else binary(net, "SUM", product, bias, value.spec.dtype)


@lowers(aten.matmul.default)
def matmul(net: Lowering, x: Operand, other: Operand) -> Value:
    """matmul(Tensor self, Tensor other) -> Tensor"""
    ranks = [rank_of(operand) for operand in (x, other)]
    if min(ranks) < 2:
        raise UnsupportedFeature("a matrix product with a vector")
    dtype = net.result.dtype
    return net.add(MatrixMultiply(), net.operand(x, dtype, max(ranks)), net.operand(other, dtype, max(ranks)))


@lowers(aten.bmm.default)
def bmm(net: Lowering, x: Operand, mat2: Operand) -> Value:
    """bmm(Tensor self, Tensor mat2) -> Tensor"""
    return net.add(MatrixMultiply(), net.value(x), net.value(mat2))


@lowers(aten.mm.default)
def mm(net: Lowering, x: Operand, mat2: Operand) -> Value:
    """mm(Tensor self, Tensor mat2) -> Tensor"""
    return matmul(net, x, mat2)


@lowers(aten.addmm.default, aten.baddbmm.default)
def addmm(net: Lowering, added: Operand, x: Operand, y: Operand, beta: float = 1, alpha: float = 1) -> Value:
    """addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    dtype = net.result.dtype
    product: Operand = matmul(net, x, y)
    if alpha != 1:
        product = binary(net, "PROD", product, alpha, dtype)
    if beta == 0:  # PyTorch then ignores what is added, NaN included
        return net.value(product)
    return binary(net, "SUM", product, added if beta == 1 else binary(net, "PROD", added, beta, dtype), dtype)


@lowers(aten.einsum.default)
def einsum(net: Lowering, equation: str, tensors: list[Operand], path: list[int] | None = None) -> Value:
    """einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor"""
    del path
    terms, _, result = equation.replace(" ", "").partition("->")
    names = terms.split(",")
    repeated = any(len(set(axes)) != len(axes) for axes in (*names, result))
    if len(names) != 2 or repeated or not result.isalpha() or not set(result) <= set(names[0] + names[1]):
        raise UnsupportedFeature(f"the sum {equation!r}", remedy="products of two tensors are supported")
    x, y = names
    shared, summed = ([axis for axis in x if axis in y and (axis in result) == kept] for kept in (True, False))
    own_x, own_y = ([axis for axis in own if axis in result and axis not in other] for own, other in ((x, y), (y, x)))
    if set(x + y) != {*shared, *summed, *own_x, *own_y}:
        raise UnsupportedFeature(f"the sum {equation!r}", remedy="sums over axes of both tensors are supported")
    size: dict[str, Dim] = {}
    matrices = []
    for operand, axes, own in zip(tensors, names, (own_x, own_y), strict=True):
        value = net.cast(net.value(operand), net.result.dtype)
        size.update(zip(axes, value.spec.shape, strict=True))
        ordered = net.permute(value, tuple(axes.index(axis) for axis in (*shared, *own, *summed)))
        shape = (*(size[axis] for axis in shared), _product(size, own), _product(size, summed))
        matrices.append(net.reshape(ordered, shape))
    product = net.add(MatrixMultiply(transpose_y=True), *matrices)
    order = [*shared, *own_x, *own_y]
    whole = net.reshape(product, tuple(size[axis] for axis in order))
    return net.permute(whole, tuple(order.index(axis) for axis in result))


def _product(size: Mapping[str, Dim], axes: Sequence[str]) -> Dim:
    found: Dim = 1
    for axis in axes:
        found = dims.multiply(found, size[axis])
    return found


@lowers(aten.conv2d.default)
def conv2d(
    net: Lowering,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], SymInt[2] padding=[0, 0],
    SymInt[2] dilation=[1, 1], SymInt groups=1) -> Tensor"""
    layer = Convolution(_pair(stride), _pair(padding), _pair(dilation), groups)
    value = net.value(x)
    if isinstance(weight, Weight) and _takes_patches(layer, value, weight):
        return _of_patches(net, value, weight, bias)
    return net.add(layer, value, net.value(weight), *([] if bias is None else [net.value(bias)]))


def _takes_patches(layer: Convolution, x: Value, weight: Weight) -> bool:
    """Whether a convolution divides an image into non-overlapping patches."""
    if layer != Convolution(layer.stride, (0, 0), (1, 1), 1):
        return False
    sizes = x.spec.shape[2:]
    return layer.stride == weight.shape[2:] and all(
        isinstance(size, int) and size % step == 0 for size, step in zip(sizes, layer.stride, strict=True)
    )


def _of_patches(net: Lowering, x: Value, weight: Weight, bias: Operand | None) -> Value:
    """A convolution of non-overlapping patches as a matrix multiplication, one row per patch.

    A row is a flattened patch [channels, height, width].
    """
    # For all targets and GPUs: patches do not overlap, so their rows repeat no value of the image. 5x faster for one
    # image of CLIP-L/14-336, see the first table of benchmarks/NOTES.md.
    batch, channels, *sizes = x.spec.shape
    high, wide = weight.shape[2:]
    rows, columns = (int(size) // step for size, step in zip(sizes, (high, wide), strict=True))  # type: ignore[arg-type]
    outputs, width = weight.shape[0], int(channels) * high * wide  # type: ignore[arg-type]
    patches = net.permute(net.reshape(x, (batch, channels, rows, high, columns, wide)), (0, 2, 4, 1, 3, 5))
    flat = net.reshape(patches, (batch, rows * columns, width))
    product = linear(net, flat, fold("reshape", weight, (outputs, width)), bias)
    return net.reshape(net.permute(product, (0, 2, 1)), (batch, outputs, rows, columns))


@lowers(aten.conv3d.default)
def conv3d(
    net: Lowering,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """conv3d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[3] stride=[1, 1, 1], SymInt[3] padding=[0, 0, 0],
    SymInt[3] dilation=[1, 1, 1], SymInt groups=1) -> Tensor"""
    del stride, dilation
    value = net.value(x)
    batch, *window = value.spec.shape
    kernel = weight.shape if isinstance(weight, Weight) else net.value(weight).spec.shape
    if kernel[1:] != tuple(window) or groups != 1 or any(_triple(padding)):
        raise UnsupportedFeature("a convolution over time and space", remedy="one of whole patches is supported")
    outputs, width = kernel[0], math.prod(int(size) for size in kernel[1:])  # type: ignore[arg-type]
    rows = net.reshape(value, (batch, width))
    flat = fold("reshape", weight, (outputs, width)) if isinstance(weight, Weight) else None
    product = linear(net, rows, net.reshape(net.value(weight), (outputs, width)) if flat is None else flat, bias)
    return net.reshape(product, (batch, outputs, 1, 1, 1))


@lowers(aten.conv2d.padding)
def conv2d_padding(
    net: Lowering,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Any = 1,
    padding: str = "valid",
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """conv2d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], str padding="valid",
    SymInt[2] dilation=[1, 1], SymInt groups=1) -> Tensor"""
    if padding != "valid":
        raise UnsupportedFeature(f"a convolution with padding {padding!r}")
    return conv2d(net, x, weight, bias, stride, 0, dilation, groups)


def _triple(value: Any) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    return (value[0], value[-1])
