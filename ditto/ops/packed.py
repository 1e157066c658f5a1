"""Attention over packed tokens, and selection of last tokens.

T tokens, H heads, G KV heads, D head width, P positions, R rotated columns.
"""

from __future__ import annotations

from typing import Any, Generic, Optional, TypeVar

import torch
from attrs import astuple, frozen
from torch import Tensor

from ditto.ops.attention import attention
from ditto.ops.rope import rope

T = TypeVar("T")


@torch.library.custom_op("ditto::packed_attention", mutates_args=())
def packed_attention(
    qkv: Tensor,
    cos: Optional[Tensor],  # noqa: UP045 - torch.library infers the schema from this spelling on every Python
    sin: Optional[Tensor],  # noqa: UP045
    heads: int,
    kv_heads: int,
    interleaved: bool,
    scale: float,
    window: int,
    softcap: float,
    layer: int,
) -> Tensor:
    """Causal attention of one packed sequence, rotary embedding included.

    Args:
        qkv: [..., T, (H + 2 G) D], leading axes of size 1: queries, keys and values of each token, head by head.
        cos, sin: [P, R / 2], tables by position of the first R columns of queries and keys, or None for no rope.
        heads, kv_heads: H and G.
        interleaved: pairs of rotated columns are (2j, 2j + 1); else (j, j + R / 2).
        scale, window, softcap, layer: as in `ditto.attention`.
    Returns:
        [..., T, H D].
    """
    tokens = qkv.shape[-2]
    width = qkv.shape[-1] // (heads + 2 * kv_heads)
    split = qkv.reshape(1, tokens, heads + 2 * kv_heads, width).transpose(1, 2)
    query, key, value = split.split([heads, kv_heads, kv_heads], dim=1)
    if cos is not None and sin is not None:
        query, key = (_rotated(x, cos, sin, interleaved) for x in (query, key))
    result = attention(query, key, value, None, None, scale, True, window, softcap, layer)
    return result.transpose(1, 2).reshape(*qkv.shape[:-1], heads * width)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    turned = 2 * cos.shape[1]
    positions = torch.arange(x.shape[2], device=x.device)[None]
    rotated = rope(x[..., :turned], cos, sin, positions, interleaved)
    return torch.cat((rotated, x[..., turned:]), dim=-1)


@packed_attention.register_fake
def _(
    qkv: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    heads: int,
    kv_heads: int,
    interleaved: bool,
    scale: float,
    window: int,
    softcap: float,
    layer: int,
) -> Tensor:
    del cos, sin, interleaved, scale, window, softcap, layer
    return qkv.new_empty((*qkv.shape[:-1], qkv.shape[-1] // (heads + 2 * kv_heads) * heads))


@frozen
class PackedAttentionArguments(Generic[T]):
    """The arguments of `packed_attention`, by name and in order; tensors are graph nodes or operands of a network."""

    qkv: T
    cos: T | None
    sin: T | None
    heads: int
    kv_heads: int
    interleaved: bool
    scale: float
    window: int
    softcap: float
    layer: int

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments of `packed_attention`."""
        return astuple(self, recurse=False)


@torch.library.custom_op("ditto::packed_last_tokens", mutates_args=())
def packed_last_tokens(x: Tensor, ends: Tensor) -> Tensor:
    """The last token of each packed sequence.

    Args:
        x: [..., T, width].
        ends: integer [N], the number of tokens up to and including each selected one: 1 for the first token.
    Returns:
        [..., N, width].
    """
    return x.index_select(-2, ends.long() - 1)


@packed_last_tokens.register_fake
def _(x: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-2], ends.shape[0], x.shape[-1]))
