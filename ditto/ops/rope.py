"""Rotary position embedding from tables of cosines and sines."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("ditto::rope", mutates_args=())
def rope(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, interleaved: bool) -> Tensor:
    """Rotate pairs of columns of x by the angles of their positions.

    Args:
        x: [B, H, S, D], floating, D even.
        cos, sin: [P, D / 2], of x's dtype.
        positions: integer [B, S] or [1, S], below P.
        interleaved: pairs are columns (2j, 2j + 1); else (j, j + D / 2).
    Source: Su et al., RoFormer (arXiv:2104.09864), section 3.4.2.
    """
    c, s = (table[positions.long()].unsqueeze(1) for table in (cos, sin))
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * c - b * s, b * c + a * s), dim=-1)


@rope.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, interleaved: bool) -> Tensor:
    del cos, sin, positions, interleaved
    return torch.empty_like(x, memory_format=torch.contiguous_format)
