"""Spans: tokens of a prompt that attend to each other in both directions, e.g. those of one image.

B prompts, S tokens. Span ids are int32 [B, S]: tokens with the same id above 0 are one span; 0 is causal text.
"""

from __future__ import annotations

from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

SPAN_IDS = "span_ids"
"""Name of the engine input of span ids."""

Cover = Literal["image", "images", "prompt"]


@frozen
class SpanRule:
    """How a model's input of token types determines the spans of a prompt.

    Args:
        input: name of the input in transformers, int64 [B, S].
        cover: what is a span: each run of marked tokens (`image`), all marked tokens (`images`), or the whole prompt,
            all of whose tokens are marked (`prompt`).
        marked: type of marked tokens, 0 or 1; other tokens have the other one.
    """

    input: str
    cover: Cover
    marked: int = 1

    def spans(self, types: Tensor) -> Tensor:
        """Span ids of token types."""
        inside = types == self.marked
        if self.cover != "image":
            return inside.int()
        starts = inside & ~torch.nn.functional.pad(inside, (1, 0))[:, :-1]
        return torch.where(inside, starts.cumsum(1), 0).int()

    def types(self, spans: Tensor) -> Tensor:
        """Token types of span ids."""
        return torch.where(spans > 0, self.marked, self.causal)

    @property
    def causal(self) -> int:
        """Type of tokens outside of spans."""
        return 1 - self.marked

    def of_prompt(self, is_image: Tensor) -> Tensor:
        """Span ids of prompts.

        Args:
            is_image: bool [B, S], whether each token is an image token.
        """
        marked = torch.ones_like(is_image) if self.cover == "prompt" else is_image
        return self.spans(torch.where(marked, self.marked, self.causal))

    def continued(self, spans: Tensor, count: int) -> Tensor:
        """Span ids of a prompt and `count` text tokens that belong to it."""
        return torch.nn.functional.pad(spans, (0, count), value=int(self.cover == "prompt"))

    def samples(self, batch: int, length: int) -> list[Tensor]:
        """Span ids of some prompts: without spans, of a single span, and with short and long ones."""
        mixed = torch.full((batch, length), self.causal)
        for row in range(batch):
            start, size = row + 1, 1
            while start < length:  # runs of 1, 2, 4, ... tokens, with 1 or 2 others between them
                mixed[row, start : start + size] = self.marked
                start, size = start + size + 1 + size % 2, 2 * size
        return [
            self.spans(types)
            for types in (torch.full_like(mixed, self.causal), torch.full_like(mixed, self.marked), mixed)
        ]


def together(spans: Tensor) -> Tensor:
    """Whether two tokens are of one span: bool [B, 1, S, S]."""
    return ((spans[:, :, None] == spans[:, None, :]) & (spans[:, :, None] > 0))[:, None]
