"""Operators over the tokens of a sequence whose results follow from a state of fixed size.

B batch, S tokens of a sequence, C channels, K taps of a kernel.
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

    Its state after a token are the channels of the last K - 1 tokens.

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
