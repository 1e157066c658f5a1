"""Lowerings of indexing, embedding, and selection of the largest elements."""

from __future__ import annotations

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.arithmetic import rank_of
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.graph import Value
from ditto.network.layers import ElementWise, Gather, GatherElements, Reduce, Select, TopK

aten = torch.ops.aten


@lowers(aten.embedding.default)
def embedding(net: Lowering, weight: Operand, indices: Operand) -> Value:
    """embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False, bool sparse=False)
    -> Tensor"""
    return net.add(Gather(axis=0), net.value(weight), net.value(indices))


@lowers(aten.index_select.default)
def index_select(net: Lowering, x: Operand, dim: int, index: Operand) -> Value:
    """index_select(Tensor self, int dim, Tensor index) -> Tensor"""
    value = net.value(x)
    return net.add(Gather(axis=dim % value.rank), value, net.value(index))


@lowers(aten.flip.default)
def flip(net: Lowering, x: Operand, dims: list[int]) -> Value:
    """flip(Tensor self, int[] dims) -> Tensor"""
    value = net.value(x)
    for axis in sorted({dim % value.rank for dim in dims}):
        size = value.spec.shape[axis]
        if not isinstance(size, int):
            raise UnsupportedFeature("reversing an axis whose size is chosen at run time")
        backwards = torch.arange(size - 1, -1, -1, dtype=torch.int32)
        value = net.add(Gather(axis=axis), value, net.literal(backwards))
    return value


@lowers(aten.index.Tensor)
def index(net: Lowering, x: Operand, indices: list[Operand | None]) -> Value:
    """index.Tensor(Tensor self, Tensor?[] indices) -> Tensor"""
    value = net.value(x)
    (axis, *others) = (axis for axis, given in enumerate(indices) if given is not None)
    given = net.value(indices[axis])  # type: ignore[arg-type]
    if others or given.spec.dtype == torch.bool:
        raise UnsupportedFeature("indexing by a mask, or along several axes at once")
    size = value.spec.shape[axis]
    if not isinstance(size, int):
        raise UnsupportedFeature("indexing along an axis whose size is chosen at run time")
    return net.add(Gather(axis=axis), value, _counted_from_front(net, given, size))


def _counted_from_front(net: Lowering, indices: Value, size: int) -> Value:
    """Indices with those below 0, which count from the end, replaced."""
    dtype, rank = indices.spec.dtype, indices.rank
    negative = net.add(ElementWise("LESS"), indices, net.operand(0, dtype, rank))
    moved = net.add(ElementWise("SUM"), indices, net.operand(size, dtype, rank))
    return net.add(Select(), negative, moved, indices)


@lowers(aten.gather.default)
def gather(net: Lowering, x: Operand, dim: int, index: Operand, sparse_grad: bool = False) -> Value:
    """gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor"""
    del sparse_grad
    value, indices = net.value(x), net.value(index)
    axis = dim % value.rank
    wanted = tuple(
        have if other == axis else size
        for other, (have, size) in enumerate(zip(value.spec.shape, indices.spec.shape, strict=True))
    )
    if wanted != value.spec.shape:  # the indices cover a part of the other axes
        value = net.box(value, (0,) * value.rank, wanted, (1,) * value.rank)
    return net.add(GatherElements(axis), value, indices)


@lowers(aten.topk.default)
def topk(
    net: Lowering,
    x: Operand,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: A002
) -> list[Value]:
    """topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor
    indices)"""
    del sorted  # in either case in descending order
    value = net.value(x)
    if not largest or not isinstance(k, int):
        raise UnsupportedFeature("the smallest elements, or as many of the largest as a size says")
    values, indices = net.network.add_many(TopK(dim % value.rank, k), value)
    return [values, net.cast(indices, torch.int64)]


@lowers(aten.max.dim)
def max_dim(net: Lowering, x: Operand, dim: int, keepdim: bool = False) -> list[Value]:
    """max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    value = net.value(x)
    axis = dim % value.rank
    values, indices = net.network.add_many(TopK(axis, 1), value)
    results = [values, net.cast(indices, torch.int64)]
    shape = (*value.spec.shape[:axis], *value.spec.shape[axis + 1 :])
    return results if keepdim else [net.reshape(result, shape) for result in results]


@lowers(aten.scatter.value)
def scatter_value(net: Lowering, x: Operand, dim: int, index: Operand, value: float) -> Value:
    """scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor"""
    chosen = _chosen(net, x, dim, index)
    hits = net.add(Reduce("MAX", (chosen.rank - 1,), keep=False), net.cast(chosen, torch.float32))
    return _replaced(net, x, hits, net.operand(value, net.result.dtype, rank_of(x)))


@lowers(aten.scatter.src)
def scatter(net: Lowering, x: Operand, dim: int, index: Operand, src: Operand) -> Value:
    """scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    # Of several elements with the same index, the largest counts: PyTorch leaves open which one does.
    dtype, rank = net.result.dtype, rank_of(x)
    if not dtype.is_floating_point:
        raise UnsupportedFeature(f"scattering of {dtype}")
    chosen = _chosen(net, x, dim, index)
    given = net.value(src)
    elements = net.reshape(given, (*given.spec.shape[:-1], 1, given.spec.shape[-1]))
    lowest = net.operand(torch.finfo(dtype).min, dtype, rank + 1)
    hits = net.add(Reduce("MAX", (rank,), keep=False), net.cast(chosen, torch.float32))
    values = net.add(Reduce("MAX", (rank,), keep=False), net.add(Select(), chosen, elements, lowest))
    return _replaced(net, x, hits, values)


def _chosen(net: Lowering, x: Operand, dim: int, index: Operand) -> Value:
    """Whether each element of x along its last axis is meant by each index: bool [..., size of x, indices]."""
    value, indices = net.value(x), net.value(index)
    *rows, size = value.spec.shape
    if dim % value.rank != value.rank - 1 or indices.spec.shape[:-1] != tuple(rows) or not isinstance(size, int):
        raise UnsupportedFeature("scattering along another axis than the last, or into a part of the rows")
    dtype = indices.spec.dtype
    places = net.literal(torch.arange(size, dtype=dtype).reshape(*(1,) * len(rows), size, 1))
    given = net.reshape(indices, (*rows, 1, indices.spec.shape[-1]))
    return net.add(ElementWise("EQUAL"), given, places)


def _replaced(net: Lowering, x: Operand, hits: Value, values: Value) -> Value:
    """x, with `values` where `hits` is 1."""
    is_hit = net.add(ElementWise("GREATER"), hits, net.operand(0.5, torch.float32, hits.rank))
    return net.add(Select(), is_hit, values, net.operand(x, net.result.dtype, hits.rank))
