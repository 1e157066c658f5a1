"""Convolutions."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.dims import Dim, divide
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec, same_dtype


@frozen
class Convolution(Layer):
    """2-D convolution.

    Inputs: x [batch, channels, height, width], kernel [out, channels / groups, height, width] and optionally a bias
    [out], of the same floating dtype; height and width are static.

    Args:
        stride, padding, dilation: per axis (height, width); padding is symmetric.
        groups: number of channel groups.

    TensorRT: IConvolutionLayer with kernel and bias as inputs.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @override
    def infer(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Spec:
        dtype = same_dtype(x.floating().of_rank(4), kernel.of_rank(4), *([bias.of_rank(1)] if bias else []))
        if x.shape[1] != kernel.shape[1] * self.groups:  # type: ignore[operator]
            raise ShapeError(f"{x} does not have the channels of kernel {kernel} in {self.groups} groups")
        if divide(kernel.shape[0], self.groups) is None:
            raise ShapeError(f"kernel {kernel} has no {self.groups} groups of equal size")
        if bias is not None and bias.shape != kernel.shape[:1]:
            raise ShapeError(f"bias {bias} does not fit kernel {kernel}")
        sizes: list[Dim] = []
        for axis in range(2):
            have, width = x.shape[2 + axis], kernel.shape[2 + axis]
            if not isinstance(have, int) or not isinstance(width, int):
                raise ShapeError(f"needs static height and width, got {x} and kernel {kernel}")
            reach = have + 2 * self.padding[axis] - self.dilation[axis] * (width - 1) - 1
            if reach < 0:
                raise ShapeError(f"kernel {kernel} is larger than {x}")
            sizes.append(reach // self.stride[axis] + 1)
        return Spec((x.shape[0], kernel.shape[0], *sizes), dtype)

    @override
    def reference(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        return torch.nn.functional.conv2d(x, kernel, bias, self.stride, self.padding, self.dilation, self.groups)

    @override
    def emit(self, to: Emitter, x: Any, kernel: Any, bias: Any = None) -> Any:
        out, _, *window = tuple(kernel.shape)
        layer = to.made(to.net.add_convolution_nd(x, out, tuple(window), to.trt.Weights(kernel.dtype)))
        layer.set_input(1, kernel)
        if bias is not None:
            layer.set_input(2, bias)
        layer.stride_nd, layer.padding_nd, layer.dilation_nd = self.stride, self.padding, self.dilation
        layer.num_groups = self.groups
        return layer.get_output(0)
