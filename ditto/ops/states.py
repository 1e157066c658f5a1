"""Operators over the tokens of a sequence whose results follow from a state of fixed size.

B batch, S tokens of a sequence.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor
from torch.nn.functional import conv1d


@torch.library.custom_op("ditto::causal_conv", mutates_args=())
def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045 - torch.library infers the schema from this spelling on every Python
    number: int,
) -> Tensor:
    """Convolution of each channel over a token and the K - 1 tokens before it, zeros before the first one.

    Its state after a token are the channels of the last K - 1 tokens. C channels, K taps of the kernel.

    Args:
        x: [B, C, S], floating.
        weight: [C, 1, K], of the same dtype.
        bias: [C] or None.
        number: index of this convolution among those of its decoder; names its state.
    Returns:
        [B, C, S].
    """
    del number
    taps = weight.shape[2]
    return conv1d(x, weight, bias, padding=taps - 1, groups=weight.shape[0])[..., : x.shape[2]].contiguous()


@causal_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, number: int) -> Tensor:
    del weight, bias, number
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("ditto::linear_attention", mutates_args=())
def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    decay: Tensor,
    rate: Optional[Tensor],  # noqa: UP045
    number: int,
) -> Tensor:
    """Attention without softmax: each token's query reads a state to which each token adds its key and value.

    The state s [B, H, K, V] is zeros before the first token. For each token, it becomes s * exp(decay), then
    s + key * u, where u is the value, or (value - sum over K of s * key) * rate (delta rule). The result is the sum
    over K of s * query.

    Args:
        query, key: float32 [B, S, H or 1, K].
        value: float32 [B, S, H, V].
        decay: float32 [B, S, H, K or 1], at most 0.
        rate: float32 [B, S, H], or None.
        number: index of this operator among those of its decoder; names its state.
    Returns:
        float32 [B, S, H, V].
    Source: Yang et al., Gated Delta Networks (arXiv:2412.06464); Dao and Gu, Transformers are SSMs (arXiv:2405.21060).
    """
    del number
    state = value.new_zeros(value.shape[0], value.shape[2], key.shape[3], value.shape[3])
    results: list[Tensor] = []
    for token in range(value.shape[1]):
        keys, update = key[:, token, :, :, None], value[:, token, :, None]
        state = state * decay[:, token, :, :, None].exp()
        if rate is not None:
            update = (update - (state * keys).sum(2, keepdim=True)) * rate[:, token, :, None, None]
        state = state + keys * update
        results.append((state * query[:, token, :, :, None]).sum(2))
    return torch.stack(results, dim=1)


@linear_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, decay: Tensor, rate: Tensor | None, number: int) -> Tensor:
    del query, key, decay, rate, number
    return torch.empty_like(value, memory_format=torch.contiguous_format)
