"""Selection of the positions whose logits are computed."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("ditto::last_tokens", mutates_args=())
def last_tokens(x: Tensor, indices: Tensor) -> Tensor:
    """Select one position of each sequence.

    Args:
        x: [B, S, width].
        indices: integer [B], each below S.
    Returns:
        [B, 1, width].
    """
    return x[torch.arange(x.shape[0], device=x.device), indices.long()].unsqueeze(1)


@last_tokens.register_fake
def _(x: Tensor, indices: Tensor) -> Tensor:
    return x.new_empty((indices.shape[0], 1, x.shape[2]))
