"""Turns as padded rows, for engines that keep one stretch of cache per row of the batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from ditto.network import Spec
from ditto.runtime.session import LlmRunner, Session, Turn


class PaddedRunner(LlmRunner):
    """Prompts that begin together and lie side by side are one call; then all rows' next tokens are one.

    Args:
        session: whose tokens and prompt table it knows.
        batch: rows.
    """

    def __init__(self, session: Session, batch: int) -> None:
        self._batch = batch
        self._cached = [0] * batch  # tokens in each row's cache
        self._tokens, self._limits = session.tokens, session.limits
        table = session.tree.component("llm").inputs.get("prompt_embedding_table")
        width = 0 if table is None else int(Spec.parse(table).shape[1])  # type: ignore[arg-type]
        self._no_pictures = torch.zeros(1, width, dtype=session.table_dtype, device=self.device)

    @abstractmethod
    def run(
        self,
        rows: slice,
        input_ids: Tensor,
        position_ids: Tensor,
        last_token_ids: Tensor,
        write_indices: Tensor,
        table: Tensor,
    ) -> Tensor:
        """Run the language model on new tokens of neighbouring rows.

        Args:
            rows: of the batch, B of them.
            input_ids, position_ids: int32 [B, S], rows padded at the end.
            last_token_ids: int32 [B], each row's last real token.
            write_indices: int32 [B], how many tokens of each row the cache holds.
            table: [rows of pictures, width], the prompt embedding table, at least one row.
        Returns:
            float32 [B, vocabulary] on `device`, valid until the next call.
        """

    def run_prompts(self, rows: slice, prompts: Sequence[Sequence[int]], table: Tensor | None) -> Tensor:
        """Run the language model on the prompts of neighbouring rows, whose caches are empty.

        Args:
            rows: of the batch.
            prompts: token ids of each.
            table: as `run` takes it; None where there are no pictures.
        Returns:
            As `run`.
        """
        return self._run_padded(rows, prompts, max(len(ids) for ids in prompts), table)

    def _run_padded(self, rows: slice, prompts: Sequence[Sequence[int]], width: int, table: Tensor | None) -> Tensor:
        """`run_prompts`, all of them padded to `width` tokens."""
        padded = [[*ids, *[self._tokens.pad] * (width - len(ids))] for ids in prompts]
        last = torch.tensor([len(ids) - 1 for ids in prompts], dtype=torch.int32)
        ids = torch.tensor(padded, dtype=torch.int32)
        positions = torch.arange(width, dtype=torch.int32).expand_as(ids).contiguous()
        return self.run(
            rows, ids, positions, last, torch.zeros_like(last), self._no_pictures if table is None else table
        )

    def run_next(self, chosen: Tensor, cached: Sequence[int], moving: Sequence[bool]) -> Tensor:
        """Run the language model on one token of every row.

        Args:
            chosen: int64 [B], on `device`.
            cached: how many tokens of each row the cache holds.
            moving: which rows keep their token; those of the others are fillers, and the next one overwrites them.
        Returns:
            As `run`.
        """
        del moving
        written = torch.tensor(cached, dtype=torch.int32)
        first = torch.zeros_like(written)
        ids = chosen.to(torch.int32)[:, None]
        return self.run(slice(0, self._batch), ids, written[:, None], first, written, self._no_pictures)

    @override
    def takes(self, turns: Sequence[Turn]) -> bool:
        return sum(_table_rows(turn) for turn in turns) <= self._limits.max_prompt_embedding_table_size

    @override
    def step(self, turns: Sequence[Turn], chosen: Tensor) -> Tensor:
        next_tokens = [turn for turn in turns if turn.past]
        if len(next_tokens) == self._batch:  # turns come in the order of their rows
            return self._run_next(next_tokens, chosen)
        groups = _neighbours([turn for turn in turns if not turn.past])
        if groups == [list(turns)]:
            return self._run_prompts(turns, slice(turns[0].row, turns[-1].row + 1))
        found: dict[int, Tensor] = {}
        for prompts in groups:
            logits = self._run_prompts(prompts, slice(prompts[0].row, prompts[-1].row + 1))
            found.update((turn.row, row.clone()) for turn, row in zip(prompts, logits, strict=True))
        if next_tokens:
            logits = self._run_next(next_tokens, chosen)
            found.update((turn.row, logits[turn.row]) for turn in next_tokens)
        return torch.stack([found[turn.row] for turn in turns])

    @override
    def leave(self, row: int) -> None:
        self._cached[row] = 0

    def _run_prompts(self, turns: Sequence[Turn], rows: slice) -> Tensor:
        prompts: list[Sequence[int]] = []
        parts: list[Tensor] = []
        offset = 0
        for turn in turns:
            ids, features = turn.request.ids, turn.request.features
            # One table for all: each row's virtual ids move behind the rows before it.
            moves = offset and features is not None
            vocab_size = self._tokens.vocab_size
            prompts.append([token + offset if token >= vocab_size else token for token in ids] if moves else ids)
            if features is not None:
                parts.append(features.to(self._no_pictures))
                offset += len(features)
            self._cached[turn.row] = len(ids)
        return self.run_prompts(rows, prompts, torch.cat(parts) if parts else None)

    def _run_next(self, turns: Sequence[Turn], chosen: Tensor) -> Tensor:
        """Logits of every row. Rows without a turn compute a filler token behind what their cache holds."""
        moving = [False] * self._batch
        for turn in turns:
            self._cached[turn.row], moving[turn.row] = turn.past, True
        logits = self.run_next(chosen, self._cached, moving)
        for turn in turns:
            self._cached[turn.row] += 1
        return logits


def _table_rows(turn: Turn) -> int:
    return 0 if turn.past or turn.request.features is None else len(turn.request.features)


def _neighbours(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Turns by row, cut where rows are missing."""
    groups: list[list[Turn]] = []
    for turn in sorted(turns, key=lambda turn: turn.row):
        if groups and groups[-1][-1].row + 1 == turn.row:
            groups[-1].append(turn)
        else:
            groups.append([turn])
    return groups
