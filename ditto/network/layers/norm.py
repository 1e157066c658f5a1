"""Layer normalization."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.layers.reduce import axes_mask
from ditto.network.spec import Spec, same_dtype


@frozen
class Normalization(Layer):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axes, computed in float32.

    Inputs: x, scale and bias of equal rank and dtype; scale and bias have size 1 on all other axes.

    Args:
        axes: the last axes of x, ascending.
        epsilon: added to the variance.

    TensorRT: INormalizationLayer, in the v2 form if the library has it; TensorRT 10.9 lacks it.
    """

    axes: tuple[int, ...]
    epsilon: float

    @override
    def infer(self, x: Spec, scale: Spec, bias: Spec) -> Spec:
        same_dtype(x.floating(), scale, bias)
        if self.axes != tuple(range(x.rank - len(self.axes), x.rank)):
            raise ShapeError(f"{self.axes} are not the last axes of {x}")
        wanted = (1,) * (x.rank - len(self.axes)) + x.shape[x.rank - len(self.axes) :]
        if scale.shape != wanted or bias.shape != wanted:
            raise ShapeError(f"scale {scale} and bias {bias} do not fit {x} normalized over axes {self.axes}")
        return x

    @override
    def reference(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        width = x.shape[x.dim() - len(self.axes) :]
        return torch.nn.functional.layer_norm(x, width, scale.reshape(width), bias.reshape(width), self.epsilon)

    @override
    def emit(self, to: Emitter, x: Any, scale: Any, bias: Any) -> Any:
        add = getattr(to.net, "add_normalization_v2", None) or to.net.add_normalization
        layer = to.made(add(x, scale, bias, axes_mask(self.axes)))
        layer.epsilon = self.epsilon
        return layer.get_output(0)
