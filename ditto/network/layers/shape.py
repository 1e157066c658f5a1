"""Layers that move elements, and shapes as tensors."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.dims import Dim, add, divide, product
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec, same_dtype


def _permuted(shape: tuple[Dim, ...], axes: tuple[int, ...] | None) -> tuple[Dim, ...]:
    if axes is None:
        return shape
    if sorted(axes) != list(range(len(shape))):
        raise ShapeError(f"{axes} is not a permutation of {len(shape)} axes")
    return tuple(shape[axis] for axis in axes)


def _sizes_spec(sizes: Spec | None, rank: int) -> None:
    if sizes is not None and sizes != Spec((rank,), torch.int64):
        raise ShapeError(f"needs the sizes as int64[{rank}], got {sizes}")


@frozen
class Shuffle(Layer):
    """Transpose, reshape, transpose, each of them optional. TensorRT: IShuffleLayer.

    Args:
        first: axes of the first transpose.
        reshape: target shape after the first transpose; 0 copies the size of the same axis, one -1 is inferred.
        second: axes of the second transpose.
        sizes: target shape that `reshape` cannot express; it is also the second input, int64 [rank], and `reshape` is
            None.
    """

    first: tuple[int, ...] | None = None
    reshape: tuple[int, ...] | None = None
    second: tuple[int, ...] | None = None
    sizes: tuple[Dim, ...] | None = None

    @override
    def infer(self, x: Spec, sizes: Spec | None = None) -> Spec:
        shape = _permuted(x.shape, self.first)
        if (sizes is None) != (self.sizes is None) or (self.sizes is not None and self.reshape is not None):
            raise ShapeError("sizes come as a second input where `sizes` names them, and only then")
        if self.sizes is not None:
            _sizes_spec(sizes, len(self.sizes))
            if product(shape) != product(self.sizes):
                raise ShapeError(f"cannot reshape {x.with_shape(shape)} to {Spec(self.sizes, x.dtype)}")
            shape = self.sizes
        elif self.reshape is not None:
            shape = _reshaped(x.with_shape(shape), self.reshape)
        return x.with_shape(_permuted(shape, self.second))

    @override
    def reference(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        x = x if self.first is None else x.permute(self.first)
        if sizes is not None:
            x = x.reshape([int(size) for size in sizes])
        elif self.reshape is not None:
            x = x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(self.reshape)])
        return x if self.second is None else x.permute(self.second)

    @override
    def emit(self, to: Emitter, x: Any, sizes: Any = None) -> Any:
        layer = to.made(to.net.add_shuffle(x))
        if self.first is not None:
            layer.first_transpose = self.first
        if sizes is not None:
            layer.set_input(1, sizes)
        elif self.reshape is not None:
            layer.reshape_dims = self.reshape
        if self.second is not None:
            layer.second_transpose = self.second
        return layer.get_output(0)


def _reshaped(x: Spec, reshape: tuple[int, ...]) -> tuple[Dim, ...]:
    known: list[Dim] = []
    for axis, size in enumerate(reshape):
        if size == 0 and axis >= x.rank:
            raise ShapeError(f"{reshape} copies axis {axis}, which {x} lacks")
        known.append(x.shape[axis] if size == 0 else size)
    if reshape.count(-1) > 1:
        raise ShapeError(f"{reshape} leaves more than one size to be inferred")
    if -1 in reshape:
        axis = reshape.index(-1)
        rest = divide(x.numel, product(dim for other, dim in enumerate(known) if other != axis))
        if rest is None:
            raise ShapeError(f"cannot reshape {x} to {reshape}")
        known[axis] = rest
    if product(known) != x.numel:
        raise ShapeError(f"cannot reshape {x} to {reshape}")
    return tuple(known)


def reshape_form(before: tuple[Dim, ...], after: tuple[Dim, ...]) -> tuple[int, ...] | None:
    """`after` as `Shuffle.reshape`; None if more than one size would have to be inferred."""
    form = [
        dim if isinstance(dim, int) else (0 if axis < len(before) and before[axis] == dim else -1)
        for axis, dim in enumerate(after)
    ]
    return tuple(form) if form.count(-1) <= 1 else None


@frozen
class Slice(Layer):
    """Strided slice along all axes; stride 0 repeats, a negative stride reverses. TensorRT: ISliceLayer.

    Args:
        start: index of the first element per axis.
        size: output shape; if it has named dimensions, it is also the second input, int64 [rank].
        stride: per axis.
    """

    start: tuple[int, ...]
    size: tuple[Dim, ...]
    stride: tuple[int, ...]

    @override
    def infer(self, x: Spec, sizes: Spec | None = None) -> Spec:
        if not len(self.start) == len(self.size) == len(self.stride) == x.rank:
            raise ShapeError(f"start, size and stride need one number per axis of {x}")
        _sizes_spec(sizes, x.rank)
        if (sizes is None) != all(isinstance(dim, int) for dim in self.size):
            raise ShapeError(f"slicing {x} to named sizes needs them as an input, and only then")
        for start, size, stride, have in zip(self.start, self.size, self.stride, x.shape, strict=True):
            if isinstance(size, int) and isinstance(have, int):
                last = start + (size - 1) * stride
                if size > 0 and not (0 <= start < have and 0 <= last < have):
                    raise ShapeError(f"the slice reaches outside {x}: {self}")
        return x.with_shape(self.size)

    @override
    def reference(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        wanted = [int(size) for size in (self.size if sizes is None else sizes)]  # type: ignore[arg-type]
        for axis, (start, size, stride) in enumerate(zip(self.start, wanted, self.stride, strict=True)):
            if stride == 0:
                shape = list(x.shape)
                shape[axis] = size
                x = x.narrow(axis, start, 1).expand(shape)
            elif stride < 0:
                x = x.index_select(axis, start + stride * torch.arange(size, device=x.device))
            elif (start, size, stride) != (0, x.shape[axis], 1):
                x = x[(slice(None),) * axis + (slice(start, start + size * stride, stride),)]
        return x

    @override
    def emit(self, to: Emitter, x: Any, sizes: Any = None) -> Any:
        static = tuple(dim if isinstance(dim, int) else 1 for dim in self.size)
        layer = to.made(to.net.add_slice(x, self.start, static, self.stride))
        if sizes is not None:
            layer.set_input(2, sizes)
        return layer.get_output(0)


@frozen
class Concatenation(Layer):
    """Concatenation along `axis`; dtypes and other sizes are equal. TensorRT: IConcatenationLayer."""

    axis: int

    @override
    def infer(self, *inputs: Spec) -> Spec:
        dtype = same_dtype(*inputs)
        rank = inputs[0].rank
        if not 0 <= self.axis < rank:
            raise ShapeError(f"axis {self.axis} is not one of {inputs[0]}")
        total: Dim = 0
        for spec in inputs:
            others = [dim for axis, dim in enumerate(spec.shape) if axis != self.axis]
            wanted = [dim for axis, dim in enumerate(inputs[0].shape) if axis != self.axis]
            if spec.rank != rank or others != wanted:
                raise ShapeError(f"cannot join {' and '.join(map(str, inputs))} along axis {self.axis}")
            total = add(total, spec.shape[self.axis])
        shape = tuple(total if axis == self.axis else dim for axis, dim in enumerate(inputs[0].shape))
        return Spec(shape, dtype)

    @override
    def reference(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.axis)

    @override
    def emit(self, to: Emitter, *inputs: Any) -> Any:
        layer = to.made(to.net.add_concatenation(list(inputs)))
        layer.axis = self.axis
        return layer.get_output(0)


@frozen
class Shape(Layer):
    """The input's shape as an int64 [rank] tensor. TensorRT: IShapeLayer."""

    @override
    def infer(self, x: Spec) -> Spec:
        return Spec((x.rank,), torch.int64)

    @override
    def reference(self, x: Tensor) -> Tensor:
        return torch.tensor(x.shape, dtype=torch.int64, device=x.device)

    @override
    def emit(self, to: Emitter, x: Any) -> Any:
        return to.made(to.net.add_shape(x)).get_output(0)


@frozen
class Fill(Layer):
    """1-D tensor start, start + step, ...; its length is an int64 [1] input. TensorRT: IFillLayer LINSPACE.

    Args:
        length: the same length, as a dimension.
        start, step: of the progression.
        dtype: int32 or int64.
    """

    length: Dim
    start: int
    step: int
    dtype: torch.dtype

    @override
    def infer(self, sizes: Spec) -> Spec:
        _sizes_spec(sizes, 1)
        return Spec((self.length,), self.dtype).integral()

    @override
    def reference(self, sizes: Tensor) -> Tensor:
        return self.start + self.step * torch.arange(int(sizes[0]), dtype=self.dtype, device=sizes.device)

    @override
    def emit(self, to: Emitter, sizes: Any) -> Any:
        layer = to.made(to.net.add_fill((1,), to.trt.FillOperation.LINSPACE, to.dtype(self.dtype)))
        layer.set_input(0, sizes)
        layer.set_input(1, to.number(self.start, self.dtype, ()))
        layer.set_input(2, to.number(self.step, self.dtype, (1,)))
        return layer.get_output(0)
