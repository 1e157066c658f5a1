"""Reductions, softmax and the largest elements along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec

_REDUCE: Mapping[str, Callable[..., Tensor]] = {
    "SUM": torch.sum,
    "AVG": torch.mean,
    "MAX": torch.amax,
    "MIN": torch.amin,
}


def axes_mask(axes: tuple[int, ...]) -> int:
    """Bit mask of axes, as in TensorRT."""
    return sum(1 << axis for axis in axes)


@frozen
class Reduce(Layer):
    """Reduction by `op` along `axes`; floating dtypes. TensorRT: IReduceLayer.

    Args:
        keep: keep the reduced axes with size 1.
    """

    op: Literal["SUM", "AVG", "MAX", "MIN"]
    axes: tuple[int, ...]
    keep: bool

    @override
    def infer(self, x: Spec) -> Spec:
        if not self.axes or len(set(self.axes)) < len(self.axes) or any(not 0 <= axis < x.rank for axis in self.axes):
            raise ShapeError(f"axes {self.axes} do not fit {x}")
        kept = ((axis, dim) for axis, dim in enumerate(x.shape) if self.keep or axis not in self.axes)
        return x.floating().with_shape(tuple(1 if axis in self.axes else dim for axis, dim in kept))

    @override
    def reference(self, x: Tensor) -> Tensor:
        return _REDUCE[self.op](x, dim=self.axes, keepdim=self.keep)

    @override
    def emit(self, to: Emitter, x: Any) -> Any:
        op = getattr(to.trt.ReduceOperation, self.op)
        return to.made(to.net.add_reduce(x, op, axes_mask(self.axes), self.keep)).get_output(0)


@frozen
class Softmax(Layer):
    """Softmax along `axis`; floating dtypes. TensorRT: ISoftMaxLayer."""

    axis: int

    @override
    def infer(self, x: Spec) -> Spec:
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"axis {self.axis} does not fit {x}")
        return x.floating()

    @override
    def reference(self, x: Tensor) -> Tensor:
        return x.softmax(self.axis)

    @override
    def emit(self, to: Emitter, x: Any) -> Any:
        layer = to.made(to.net.add_softmax(x))
        layer.axes = axes_mask((self.axis,))
        return layer.get_output(0)


@frozen
class TopK(Layer):
    """The `count` largest elements along `axis`, in descending order, and their int32 indices; floating dtypes.

    TensorRT: ITopKLayer.
    """

    axis: int
    count: int

    @override
    def infer(self, x: Spec) -> tuple[Spec, Spec]:
        size = x.shape[self.axis] if 0 <= self.axis < x.rank else 0
        if not isinstance(size, int) or not 1 <= self.count <= size:
            raise ShapeError(f"cannot take the largest {self.count} along axis {self.axis} of {x}")
        taken = x.floating().with_shape((*x.shape[: self.axis], self.count, *x.shape[self.axis + 1 :]))
        return taken, taken.with_dtype(torch.int32)

    @override
    def reference(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = x.topk(self.count, self.axis)
        return values, indices.int()

    @override
    def emit(self, to: Emitter, x: Any) -> Any:
        layer = to.made(to.net.add_topk(x, to.trt.TopKOperation.MAX, self.count, axes_mask((self.axis,))))
        return layer.get_output(0), layer.get_output(1)
