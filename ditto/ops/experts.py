"""Mixtures of experts: linear layers whose weight each token chooses.

T tokens, E experts, k choices of each token, I inner width, W hidden width.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor


@torch.library.custom_op("ditto::expert_linear", mutates_args=())
def expert_linear(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045 - torch.library infers the schema from this spelling on every Python
    experts: Tensor,
    transposed: bool,
) -> Tensor:
    """The linear layer of each chosen expert, applied to each token.

    Args:
        x: [T, W], floating.
        weight: [E, I, W], or [E, W, I] if `transposed`.
        bias: [E, I] or None.
        experts: integer [T, k], each below E.
    Returns:
        [T, k, I].
    """
    chosen = weight[experts.long()] if transposed else weight[experts.long()].transpose(-1, -2)
    product = (x[:, None, None] @ chosen).squeeze(-2)
    return product if bias is None else product + bias[experts.long()]


@expert_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, experts: Tensor, transposed: bool) -> Tensor:
    del bias
    return x.new_empty((*experts.shape, weight.shape[2 if transposed else 1]))


@torch.library.custom_op("ditto::expert_sum", mutates_args=())
def expert_sum(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    experts: Tensor,
    shares: Tensor,
    transposed: bool,
) -> Tensor:
    """The sum over each token's chosen experts of their linear layers, times their shares.

    Args:
        x: [T, k, I], floating.
        weight: [E, W, I], or [E, I, W] if `transposed`.
        bias: [E, W] or None.
        experts: integer [T, k], each below E.
        shares: [T, k], floating.
    Returns:
        [T, W], of x's dtype.
    """
    chosen = weight[experts.long()] if transposed else weight[experts.long()].transpose(-1, -2)
    product = (x.unsqueeze(-2) @ chosen).squeeze(-2)
    if bias is not None:
        product = product + bias[experts.long()]
    return (product * shares.unsqueeze(-1)).sum(1).to(x.dtype)


@expert_sum.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, experts: Tensor, shares: Tensor, transposed: bool) -> Tensor:
    del bias, experts, shares
    return x.new_empty((x.shape[0], weight.shape[2 if transposed else 1]))
