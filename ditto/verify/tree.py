"""Logits and tokens of a tree, in the format of the reference outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from ditto.runtime import Request, Session, generate
from ditto.runtime.session import ScheduledRow
from ditto.verify.inputs import Prompts


def requests_of(session: Session, prompts: Prompts, features: Tensor | None) -> list[Request]:
    """Requests from prompts, with virtual ids in place of image tokens.

    Args:
        features: [rows, width], image embeddings in the order of the prompts; None without images. Each virtual id
            selects one row.
    """
    ids = prompts.ids
    if features is None:
        return [Request(tuple(row)) for row in ids.tolist()]
    places = ids == session.tokens.image
    virtual = torch.where(places, session.tokens.vocab_size + places.cumsum(1) - 1, ids).tolist()
    parts = features.split(places.sum(1).tolist())
    rows = zip_longest(virtual, parts, prompts.positions, prompts.spans if prompts.spans is not None else ())
    return [Request(tuple(row), features, positions=positions, spans=spans) for row, features, positions, spans in rows]


def embeddings(session: Session, prompts: Prompts) -> Tensor | None:
    """Image embeddings of prompts, [rows, width]; None without images."""
    return torch.cat(session.embeddings(prompts.items)) if prompts.items else None


def logits(session: Session, request: Request, tokens: Sequence[int]) -> Tensor:
    """Logits after the prompt and after each of `tokens` but the last.

    float32 [N, V], on the CPU.
    """
    return torch.stack(list(steps(session, request, tokens)))


def steps(session: Session, request: Request, tokens: Sequence[int]) -> Iterator[Tensor]:
    """The same logits one position at a time, float32 [V].

    Each is computed on demand.
    """
    runner = session.start(1)
    sampled = torch.zeros(1, dtype=torch.int64, device=runner.device)
    for past, token in zip((0, *range(len(request.ids), len(request.ids) + len(tokens) - 1)), (0, *tokens)):
        with runner.working():
            sampled.fill_(token)
            found = runner.step([ScheduledRow(0, request, past)], sampled)[0].float().cpu()
        yield found
    runner.close()


def answers(session: Session, requests: Sequence[Request], new_tokens: int) -> list[tuple[int, ...]]:
    """Greedy tokens of each request, in batches of the engine's maximum size."""
    limits = session.limits
    results: list[tuple[int, ...]] = []
    batch: list[Request] = []
    for request in [*requests, None]:
        rows = sum(_rows(item) for item in [*batch, *([request] if request else [])])
        full = len(batch) == limits.max_batch_size or rows > limits.max_prompt_embedding_table_size
        if batch and (request is None or full):
            results += [answer.ids for answer in generate(session, batch, new_tokens)]
            batch = []
        if request is not None:
            batch.append(request)
    return results


def _rows(request: Request) -> int:
    return 0 if request.features is None else len(request.features)
