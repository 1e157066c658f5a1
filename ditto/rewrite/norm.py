"""Recognition of root-mean-square norms, in the forms that models use."""

from __future__ import annotations

import torch
from torch import Tensor

from ditto import ops
from ditto.program import Program
from ditto.rewrite.rule import Bindings, Rewrite


def _normal(x: Tensor, epsilon: float) -> Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)


def _llama(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return weight * _normal(x, epsilon).to(x.dtype)


def _rounded_first(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return ops.rms_norm(x, weight, epsilon)


def _gemma(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return (_normal(x, epsilon) * (1.0 + weight.float())).to(x.dtype)


def _shifted(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return ops.rms_norm(x, 1.0 + weight.float(), epsilon)


def _olmo(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return (weight * _normal(x, epsilon)).to(x.dtype)


def _multiplied_first(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return ops.rms_norm(x, weight.float(), epsilon)


def _constant_weight(program: Program, found: Bindings) -> str | None:
    weight, x = found["weight"], found["x"]
    if not program.is_constant(weight):
        return "the weight is not a constant"
    if not isinstance(x.meta["val"].shape[-1], int) or weight.meta["val"].shape != x.meta["val"].shape[-1:]:
        return "the weight is not as wide as the last axis"
    return None


_SAMPLE = (torch.randn(2, 3, 8), torch.randn(8), 1.25e-6)

LLAMA_NORM = Rewrite("RMS norm, rounded first", _llama, _rounded_first, _SAMPLE, _constant_weight)
GEMMA_NORM = Rewrite("RMS norm of 1 + weight", _gemma, _shifted, _SAMPLE, _constant_weight)
OLMO_NORM = Rewrite("RMS norm, multiplied first", _olmo, _multiplied_first, _SAMPLE, _constant_weight)
