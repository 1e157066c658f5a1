"""What Hugging Face answers, token by token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def greedy(model: Any, ids: list[int], count: int, **given: Any) -> tuple[int, ...]:
    """Greedy new tokens after a prompt."""
    tokens = torch.tensor([ids])
    return _made(model, len(ids), count, input_ids=tokens, **given)[len(ids) :]


def greedy_with_features(
    model: Any, ids: list[int], features: Tensor | None, count: int, vocab_size: int = 128
) -> tuple[int, ...]:
    """Greedy new tokens after a prompt in which ids from `vocab_size` on stand for rows of `features` [rows, width]."""
    embedded = model.get_input_embeddings()(torch.tensor([min(token, vocab_size - 1) for token in ids])).detach()
    for index, token in enumerate(ids):
        if token >= vocab_size and features is not None:
            embedded[index] = features[token - vocab_size]
    return _made(model, len(ids), count, inputs_embeds=embedded[None])


def _made(model: Any, length: int, count: int, **given: Any) -> tuple[int, ...]:
    mask = torch.ones(1, length, dtype=torch.long)
    with torch.no_grad():
        made = model.generate(attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0, **given)
    return tuple(made[0].tolist())
