"""Prefill, then one token of each row at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from ditto.runtime.session import Request, Session


@frozen
class Answer:
    """New tokens of one request; the end token, where there is one, is the last."""

    ids: tuple[int, ...]


def generate(session: Session, requests: Sequence[Request], max_new_tokens: int) -> list[Answer]:
    """The most likely continuation of each request, token by token.

    Args:
        requests: run as one batch; rows may differ in length and in pictures.
        max_new_tokens: per row; a row ends before at an end token.
    Raises:
        PromptError: the batch is more than the engine takes.
    """
    session.limits.check(requests, max_new_tokens)
    ids, table = _assembled(session, requests)
    lengths = torch.tensor([len(request.ids) for request in requests], dtype=torch.int32)
    runner = session.start(len(requests))
    positions = torch.arange(ids.shape[1], dtype=torch.int32).expand(len(requests), -1)
    logits = runner.step(ids, positions.contiguous(), lengths - 1, torch.zeros_like(lengths), table)
    made: list[list[int]] = [[] for _ in requests]
    running = [True] * len(requests)
    while True:
        chosen = logits.argmax(-1).tolist()
        for row, token in enumerate(chosen):
            if running[row]:
                made[row].append(token)
                running[row] = token not in session.tokens.end and len(made[row]) < max_new_tokens
        if not any(running):
            return [Answer(tuple(tokens)) for tokens in made]
        alive = torch.tensor(running, dtype=torch.int32)
        step = torch.tensor(chosen, dtype=torch.int32) * alive + session.tokens.pad * (1 - alive)
        logits = runner.step(step[:, None], lengths[:, None], torch.zeros_like(lengths), lengths, table)
        lengths = lengths + alive


def _assembled(session: Session, requests: Sequence[Request]) -> tuple[Tensor, Tensor]:
    """Rows padded at the end, and one prompt embedding table for all: each row's virtual ids move behind the rows
    before it."""
    width = max(len(request.ids) for request in requests)
    vocab_size = session.tokens.vocab_size
    rows: list[list[int]] = []
    parts: list[Tensor] = []
    offset = 0
    for request in requests:
        ids = [token + offset if token >= vocab_size else token for token in request.ids]
        rows.append(ids + [session.tokens.pad] * (width - len(ids)))
        if request.features is not None:
            parts.append(request.features.to(session.table_dtype))
            offset += len(request.features)
    hidden = session.tree.config("llm")["pretrained_config"]["hidden_size"]
    table = torch.cat(parts) if parts else torch.zeros(1, hidden, dtype=session.table_dtype)
    return torch.tensor(rows, dtype=torch.int32), table
