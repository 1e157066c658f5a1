"""Root-mean-square normalization."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("ditto::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis.

    The quotient is computed in float32 and rounded to x's dtype; the product with the weight is computed in the
    weight's dtype if that is wider than x's, else in x's, and comes back in x's dtype.

    Args:
        x: [..., width], floating.
        weight: [width]; float32 for models that multiply before rounding (Gemma), x's dtype for those that multiply
            after (Llama).
        epsilon: added to the mean square.
    Source: Zhang and Sennrich, Root Mean Square Layer Normalization (arXiv:1910.07467).
    """
    wide = x.float()
    quotient = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return (quotient.to(weight.dtype) * weight).to(x.dtype)


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    del weight, epsilon
    return torch.empty_like(x)
