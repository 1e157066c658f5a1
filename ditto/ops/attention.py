"""Scaled dot-product attention with masks, sinks, slopes, windows and soft capping."""

from __future__ import annotations

from typing import Any, Generic, Optional, TypeVar

import torch
from attrs import astuple, frozen
from torch import Tensor

from ditto.ops.spans import together

T = TypeVar("T")


@torch.library.custom_op("ditto::attention", mutates_args=())
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Optional[Tensor],  # noqa: UP045 - torch.library infers the schema from this spelling on every Python
    sinks: Optional[Tensor],  # noqa: UP045
    scale: float,
    causal: bool,
    window: int,
    softcap: float,
    layer: int,
    slopes: Optional[Tensor] = None,  # noqa: UP045
    spans: Optional[Tensor] = None,  # noqa: UP045
    whole_spans: bool = False,
) -> Tensor:
    """Attention, softmax in float32.

    Args:
        query: [B, H, S, D], floating.
        key, value: [B, G, S, D] and [B, G, S, V] of the same dtype; query and key positions are the same tokens.
        mask: bool (true: attended) or floating (added to the scores), broadcastable to [B, H, S, S], or None.
        sinks: [H], a score per head that is part of the softmax but has no value, or None.
        scale: factor of the scores.
        causal: position s attends to 0 to s.
        window: position s attends to s - window + 1 to s at most; 0 for no window. Requires `causal`.
        softcap: scores become softcap * tanh(score / softcap) before masking; 0 for none.
        layer: index of the decoder layer whose KV cache this attention uses.
        slopes: float32 [H]; the score of key k for query s gets slope * (k - s) added before masking, or None.
        spans: int32 [B, S]; a position also attends to later ones with the same number, unless it is 0; or None.
            Requires `causal`.
        whole_spans: a position attends to all of its span, also to what is before its window.
    Returns:
        [B, H, S, V].
    Source of `slopes`: Press et al., Train Short, Test Long (arXiv:2108.12409).
    """
    group = query.shape[1] // key.shape[1]
    keys, values = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = (query.float() @ keys.float().transpose(-1, -2)) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if slopes is not None:
        positions = torch.arange(query.shape[2], device=query.device)
        scores = scores + slopes.reshape(1, -1, 1, 1) * (positions[None, :] - positions[:, None])
    if causal:
        seen = visible(query.shape[2], window, query.device)
        if spans is not None:
            seen = with_spans(spans, window, whole_spans)
        scores = scores.masked_fill(~seen, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask.float()
    if sinks is not None:
        column = sinks.float().reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        scores = torch.cat((scores, column), dim=-1)
    weights = scores.softmax(-1)[..., : keys.shape[2]]
    return (weights @ values.float()).to(query.dtype)


@attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    causal: bool,
    window: int,
    softcap: float,
    layer: int,
    slopes: Tensor | None = None,
    spans: Tensor | None = None,
    whole_spans: bool = False,
) -> Tensor:
    del key, mask, sinks, slopes, scale, causal, window, softcap, layer, spans, whole_spans
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def visible(length: int, window: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Causal mask, bool [length, length], true where a query attends to a key; `window` as in `attention`."""
    positions = torch.arange(length, device=device)
    queries, keys = positions[:, None], positions[None, :]
    seen = keys <= queries
    return seen & (keys > queries - window) if window else seen


def with_spans(spans: Tensor, window: int = 0, whole: bool = False) -> Tensor:
    """Causal mask with spans, bool [B, 1, S, S], true where a query attends to a key.

    Args:
        spans, window: as in `attention`.
        whole: whether queries attend to what is of their span, but before their window.
    """
    length, device = spans.shape[1], spans.device
    if whole or not window:
        return visible(length, window, device) | together(spans)
    positions = torch.arange(length, device=device)
    in_reach = positions[None, :] > positions[:, None] - window
    return (visible(length, device=device) | together(spans)) & in_reach


@frozen
class AttentionArguments(Generic[T]):
    """The arguments of `attention`, by name and in order; tensors are graph nodes or values of a network."""

    query: T
    key: T
    value: T
    mask: T | None
    sinks: T | None
    scale: float
    causal: bool
    window: int
    softcap: float
    layer: int
    slopes: T | None = None
    spans: T | None = None
    whole_spans: bool = False

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments of `attention`."""
        return astuple(self, recurse=False)
