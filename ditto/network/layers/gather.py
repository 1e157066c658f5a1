"""Gather: slices and elements by index."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec


@frozen
class Gather(Layer):
    """Slices of `x` along `axis`, at `indices`. TensorRT: IGatherLayer, default mode.

    Output shape: x's axes before `axis`, then those of `indices` after the batch axes, then x's axes after `axis`.

    Args:
        axis: of x.
        batch_axes: number of leading axes that x and indices share: 0, or 1 if `axis` is not the first axis.
    """

    axis: int
    batch_axes: int = 0

    @override
    def infer(self, x: Spec, indices: Spec) -> Spec:
        indices.integral()
        if not (0 <= self.batch_axes <= min(1, self.axis) and self.axis < x.rank):
            raise ShapeError(f"axis {self.axis} with {self.batch_axes} batch axes does not fit {x}")
        if x.shape[: self.batch_axes] != indices.shape[: self.batch_axes]:
            raise ShapeError(f"{x} and {indices} differ in their first {self.batch_axes} axes")
        return x.with_shape(x.shape[: self.axis] + indices.shape[self.batch_axes :] + x.shape[self.axis + 1 :])

    @override
    def reference(self, x: Tensor, indices: Tensor) -> Tensor:
        if self.batch_axes == 0:
            taken = x.index_select(self.axis, indices.reshape(-1))
            return taken.reshape(x.shape[: self.axis] + indices.shape + x.shape[self.axis + 1 :])
        rows = [Gather(self.axis - 1).reference(*pair) for pair in zip(x, indices, strict=True)]
        return torch.stack(rows)

    @override
    def emit(self, to: Emitter, x: Any, indices: Any) -> Any:
        layer = to.made(to.net.add_gather(x, indices, self.axis))
        layer.num_elementwise_dims = self.batch_axes
        return layer.get_output(0)


@frozen
class GatherElements(Layer):
    """Elements of `x` along `axis`: index i of another axis reads only index i of `x`. TensorRT: IGatherLayer, ELEMENT.

    `x` and `indices` have equal shapes apart from `axis`; the output has the shape of `indices`.
    """

    axis: int

    @override
    def infer(self, x: Spec, indices: Spec) -> Spec:
        indices.integral()
        if not 0 <= self.axis < x.rank or x.rank != indices.rank:
            raise ShapeError(f"axis {self.axis} does not fit {x} and {indices}")
        if any(axis != self.axis and x.shape[axis] != indices.shape[axis] for axis in range(x.rank)):
            raise ShapeError(f"{x} and {indices} differ in an axis other than {self.axis}")
        return x.with_shape(indices.shape)

    @override
    def reference(self, x: Tensor, indices: Tensor) -> Tensor:
        return x.gather(self.axis, indices.long())

    @override
    def emit(self, to: Emitter, x: Any, indices: Any) -> Any:
        layer = to.made(to.net.add_gather_v2(x, indices, to.trt.GatherMode.ELEMENT))
        layer.axis = self.axis
        return layer.get_output(0)
