"""Lowerings of reshapes, permutations, repetition, slicing and concatenation."""

from __future__ import annotations

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network import dims
from ditto.network.dims import Dim, DimExpr
from ditto.network.graph import Value
from ditto.network.layers import Concatenation, Fill

aten = torch.ops.aten


@lowers(aten.view.default, aten._unsafe_view.default)
def view(net: Lowering, x: Operand, size: list[Dim]) -> Value:
    """view(Tensor(a) self, SymInt[] size) -> Tensor(a)"""
    del size
    return net.reshape(net.value(x), net.result.shape)


@lowers(aten.reshape.default)
def reshape(net: Lowering, x: Operand, shape: list[Dim]) -> Value:
    """reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)"""
    del shape
    return net.reshape(net.value(x), net.result.shape)


@lowers(aten.flatten.using_ints)
def flatten(net: Lowering, x: Operand, start_dim: int = 0, end_dim: int = -1) -> Value:
    """flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)"""
    del start_dim, end_dim
    return net.reshape(net.value(x), net.result.shape)


@lowers(aten.unflatten.int)
def unflatten(net: Lowering, x: Operand, dim: int, sizes: list[Dim]) -> Value:
    """unflatten.int(Tensor(a) self, int dim, SymInt[] sizes) -> Tensor(a)"""
    del dim, sizes
    return net.reshape(net.value(x), net.result.shape)


@lowers(aten.squeeze.default)
def squeeze(net: Lowering, x: Operand) -> Value:
    """squeeze(Tensor(a) self) -> Tensor(a)"""
    return net.reshape(net.value(x), net.result.shape)


@lowers(aten.view_as.default, aten.reshape_as.default)
def view_as(net: Lowering, x: Operand, other: Operand) -> Value:
    """view_as(Tensor(a) self, Tensor other) -> Tensor(a)"""
    del other
    return net.reshape(net.value(x), net.result.shape)


@lowers(aten.unsqueeze.default, aten.squeeze.dim)
def unsqueeze(net: Lowering, x: Operand, dim: int) -> Value:
    """unsqueeze(Tensor(a) self, int dim) -> Tensor(a)"""
    del dim
    return net.reshape(net.value(x), net.result.shape)


@lowers(aten.transpose.int)
def transpose(net: Lowering, x: Operand, dim0: int, dim1: int) -> Value:
    """transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)"""
    value = net.value(x)
    axes = list(range(value.rank))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return net.permute(value, tuple(axes))


@lowers(aten.permute.default)
def permute(net: Lowering, x: Operand, dims: list[int]) -> Value:
    """permute(Tensor(a) self, int[] dims) -> Tensor(a)"""
    value = net.value(x)
    return net.permute(value, tuple(axis % value.rank for axis in dims))


@lowers(aten.numpy_T.default, aten.t.default)
def reversed_axes(net: Lowering, x: Operand) -> Value:
    """numpy_T(Tensor(a) self) -> Tensor(a)"""
    value = net.value(x)
    return net.permute(value, tuple(reversed(range(value.rank))))


@lowers(aten.expand_as.default)
def expand_as(net: Lowering, x: Operand, other: Operand) -> Value:
    """expand_as(Tensor(a) self, Tensor other) -> Tensor(a)"""
    del other
    return expand(net, x, [])


@lowers(aten.repeat_interleave.self_int)
def repeat_interleave(
    net: Lowering, x: Operand, repeats: Dim, dim: int | None = None, output_size: Dim | None = None
) -> Value:
    """repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *, SymInt? output_size=None) -> Tensor"""
    del output_size
    value = net.value(x)
    if dim is None or not isinstance(repeats, int):
        raise UnsupportedFeature("repetition of all elements in a row, or as often as a size says")
    axis, shape = dim % value.rank, value.spec.shape
    one = net.reshape(value, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    size = (*shape[: axis + 1], repeats, *shape[axis + 1 :])
    strides = tuple(0 if index == axis + 1 else 1 for index in range(one.rank))
    return net.reshape(net.box(one, (0,) * one.rank, size, strides), net.result.shape)


@lowers(aten.repeat.default)
def repeat(net: Lowering, x: Operand, repeats: list[Dim]) -> Value:
    """repeat(Tensor self, SymInt[] repeats) -> Tensor"""
    value = net.operand(x, net.result.dtype, len(repeats))
    single: list[Dim] = [size for dim in value.spec.shape for size in (1, dim)]
    whole: list[Dim] = [size for pair in zip(repeats, value.spec.shape, strict=True) for size in pair]
    strides = tuple(0 if index % 2 == 0 else 1 for index in range(len(whole)))
    repeated = net.box(net.reshape(value, tuple(single)), (0,) * len(whole), tuple(whole), strides)
    return net.reshape(repeated, net.result.shape)


@lowers(aten.expand.default)
def expand(net: Lowering, x: Operand, size: list[Dim]) -> Value:
    """expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)"""
    del size
    wanted = net.result
    value = net.operand(x, wanted.dtype, wanted.rank)
    strides = tuple(0 if have == 1 and want != 1 else 1 for have, want in zip(value.spec.shape, wanted.shape))
    return net.box(value, (0,) * wanted.rank, wanted.shape, strides)


@lowers(aten.slice.Tensor)
def slice_(
    net: Lowering,
    x: Operand,
    dim: int = 0,
    start: Dim | None = None,
    end: Dim | None = None,
    step: int = 1,
) -> Value:
    """slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)"""
    del end
    value = net.value(x)
    axis = dim % value.rank
    first = start or 0
    have, size = value.spec.shape[axis], net.result.shape[axis]
    if isinstance(first, int) and first < 0 and isinstance(have, int):
        first = max(first + have, 0)
    if not isinstance(first, int) or first < 0:
        raise UnsupportedFeature("a slice whose start depends on sizes", remedy="slice from the front of the axis")
    return net.slice(value, axis, first, size, step)


@lowers(aten.select.int)
def select(net: Lowering, x: Operand, dim: int, index: int) -> Value:
    """select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)"""
    value = net.value(x)
    axis = dim % value.rank
    have = value.spec.shape[axis]
    if not isinstance(index, int) or (index < 0 and not isinstance(have, int)):
        raise UnsupportedFeature("a selected index that depends on sizes")
    first = index if index >= 0 else index + int(have)  # type: ignore[arg-type]
    return net.reshape(net.slice(value, axis, first, 1), net.result.shape)


@lowers(aten.cat.default, aten.concat.default)
def cat(net: Lowering, tensors: list[Operand], dim: int = 0) -> Value:
    """cat(Tensor[] tensors, int dim=0) -> Tensor"""
    values = [net.cast(net.value(tensor), net.result.dtype) for tensor in tensors]
    return net.add(Concatenation(dim % values[0].rank), *values)


@lowers(aten.stack.default)
def stack(net: Lowering, tensors: list[Operand], dim: int = 0) -> Value:
    """stack(Tensor[] tensors, int dim=0) -> Tensor"""
    axis = dim % net.result.rank
    single = net.result.shape[:axis] + (1,) + net.result.shape[axis + 1 :]
    values = [net.reshape(net.cast(net.value(tensor), net.result.dtype), single) for tensor in tensors]
    return net.add(Concatenation(axis), *values)


@lowers(aten.split_with_sizes.default)
def split_with_sizes(net: Lowering, x: Operand, split_sizes: list[int], dim: int = 0) -> list[Value]:
    """split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]"""
    value, parts, start = net.value(x), [], 0
    for size in split_sizes:
        parts.append(net.slice(value, dim % value.rank, start, size))
        start += size
    return parts


@lowers(aten.split.Tensor)
def split(net: Lowering, x: Operand, split_size: int, dim: int = 0) -> list[Value]:
    """split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]"""
    return split_with_sizes(net, x, _even(net, x, split_size, dim), dim)


@lowers(aten.chunk.default)
def chunk(net: Lowering, x: Operand, chunks: int, dim: int = 0) -> list[Value]:
    """chunk(Tensor(a -> *) self, int chunks, int dim=0) -> Tensor(a)[]"""
    have = net.value(x).spec.shape[dim]
    size = -(-have // chunks) if isinstance(have, int) else 0
    return split_with_sizes(net, x, _even(net, x, size, dim), dim)


@lowers(aten.unbind.int)
def unbind(net: Lowering, x: Operand, dim: int = 0) -> list[Value]:
    """unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]"""
    value = net.value(x)
    axis = dim % value.rank
    shape = (*value.spec.shape[:axis], *value.spec.shape[axis + 1 :])
    return [net.reshape(part, shape) for part in split_with_sizes(net, x, _even(net, x, 1, axis), axis)]


def _even(net: Lowering, x: Operand, size: int, dim: int) -> list[int]:
    have = net.value(x).spec.shape[dim]
    if not isinstance(have, int) or not isinstance(size, int):
        raise UnsupportedFeature("splitting an axis whose size is chosen at run time")
    return [min(size, have - start) for start in range(0, have, size)]


@lowers(aten.arange.default)
def arange(net: Lowering, end: Dim, dtype: torch.dtype | None = None) -> Value:
    """arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) ->
    Tensor"""
    return arange_start(net, 0, end, dtype)


@lowers(aten.arange.start)
def arange_start(net: Lowering, start: Dim, end: Dim, dtype: torch.dtype | None = None) -> Value:
    """arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor"""
    del dtype
    if isinstance(start, (int, float)) and isinstance(end, (int, float)):
        return net.literal(torch.arange(start, end, dtype=net.result.dtype))
    length = dims.add(end, dims.multiply(start, -1))
    if not isinstance(start, int) or not isinstance(length, DimExpr):
        raise UnsupportedFeature("a range that starts at a size")
    return net.add(Fill(length, start, 1, net.result.dtype), net.sizes((length,)))


def _filled(net: Lowering, number: float) -> Value:
    wanted = net.result
    if wanted.is_static:
        return net.literal(torch.full([int(dim) for dim in wanted.shape], number, dtype=wanted.dtype))  # type: ignore[arg-type]
    one = net.literal(torch.full((1,) * wanted.rank, number, dtype=wanted.dtype))
    return net.box(one, (0,) * wanted.rank, wanted.shape, tuple(0 if dim != 1 else 1 for dim in wanted.shape))


@lowers(aten.ones_like.default)
def ones_like(net: Lowering, x: Operand, dtype: torch.dtype | None = None) -> Value:
    """ones_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor"""
    del x, dtype
    return _filled(net, 1)


@lowers(aten.zeros_like.default)
def zeros_like(net: Lowering, x: Operand, dtype: torch.dtype | None = None) -> Value:
    """zeros_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor"""
    del x, dtype
    return _filled(net, 0)


@lowers(aten.full_like.default)
def full_like(net: Lowering, x: Operand, fill_value: float, dtype: torch.dtype | None = None) -> Value:
    """full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor"""
    del x, dtype
    return _filled(net, fill_value)


@lowers(aten.new_zeros.default, aten.new_empty.default)  # what a model reads of empty memory, it has written before
def new_zeros(net: Lowering, x: Operand, size: list[Dim], dtype: torch.dtype | None = None) -> Value:
    """new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor"""
    del x, size, dtype
    return _filled(net, 0)


@lowers(aten.new_ones.default)
def new_ones(net: Lowering, x: Operand, size: list[Dim], dtype: torch.dtype | None = None) -> Value:
    """new_ones(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor"""
    del x, size, dtype
    return _filled(net, 1)


@lowers(aten.new_full.default)
def new_full(net: Lowering, x: Operand, size: list[Dim], fill_value: float, dtype: torch.dtype | None = None) -> Value:
    """new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device?
    device=None, bool? pin_memory=None) -> Tensor"""
    del x, size, dtype
    return _filled(net, fill_value)


@lowers(aten.full.default)
def full(net: Lowering, size: list[Dim], fill_value: float, dtype: torch.dtype | None = None) -> Value:
    """full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor"""
    del size, dtype
    return _filled(net, fill_value)


@lowers(aten.zeros.default)
def zeros(net: Lowering, size: list[Dim], dtype: torch.dtype | None = None) -> Value:
    """zeros(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None)
    -> Tensor"""
    del size, dtype
    return _filled(net, 0)


@lowers(aten.ones.default)
def ones(net: Lowering, size: list[Dim], dtype: torch.dtype | None = None) -> Value:
    """ones(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None)
    -> Tensor"""
    del size, dtype
    return _filled(net, 1)
