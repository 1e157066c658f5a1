"""Turns as padded rows, for engines that keep one stretch of cache per row of the batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from ditto.runtime.session import LlmRunner, Session, Turn


class PaddedRunner(LlmRunner):
    """Prompts that begin together and lie side by side are one call; then all rows' next tokens are one.

    Args:
        session: whose tokens and prompt table it knows.
        batch: rows.
    """

    def __init__(self, session: Session, batch: int) -> None:
        self._batch = batch
        self._cached = [0] * batch
        self._tokens = session.tokens
        width = int(session.tree.config("llm")["pretrained_config"]["hidden_size"])
        self._no_pictures = torch.zeros(1, width, dtype=session.table_dtype)

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
            float32 [B, vocabulary], on the CPU.
        """

    @override
    def step(self, turns: Sequence[Turn]) -> Tensor:
        found: dict[int, Tensor] = {}
        for part in _neighbours([turn for turn in turns if len(turn.ids) > 1 or not turn.past]):
            found.update(self._run(part, range(part[0].row, part[-1].row + 1)))
        single = [turn for turn in turns if turn.row not in found]
        if single:
            found.update(self._run(single, range(self._batch)))
        return torch.stack([found[turn.row] for turn in turns])

    @override
    def leave(self, row: int) -> None:
        self._cached[row] = 0

    def _run(self, turns: Sequence[Turn], rows: range) -> dict[int, Tensor]:
        """Logits by row. Rows without a turn compute a filler token, which lands behind what their cache holds and is
        overwritten by their next one."""
        of_row = {turn.row: turn for turn in turns}
        width = max(len(turn.ids) for turn in turns)
        ids = torch.full((len(rows), width), self._tokens.pad, dtype=torch.int32)
        last = torch.zeros(len(rows), dtype=torch.int32)
        parts: list[Tensor] = []
        offset = 0
        for index, row in enumerate(rows):
            if row not in of_row:
                continue
            turn = of_row[row]
            # One table for all: each row's virtual ids move behind the rows before it.
            moved = [token + offset if token >= self._tokens.vocab_size else token for token in turn.ids]
            ids[index, : len(moved)] = torch.tensor(moved, dtype=torch.int32)
            last[index] = len(moved) - 1
            if turn.request.features is not None and not turn.past:
                parts.append(turn.request.features.to(self._no_pictures.dtype))
                offset += len(parts[-1])
        cached = torch.tensor([self._cached[row] for row in rows], dtype=torch.int32)
        positions = cached[:, None] + torch.arange(width, dtype=torch.int32)
        table = torch.cat(parts) if parts else self._no_pictures
        logits = self.run(slice(rows.start, rows.stop), ids, positions, last, cached, table)
        for row, turn in of_row.items():
            self._cached[row] = turn.past + len(turn.ids)
        return {row: logits[row - rows.start] for row in of_row}


def _neighbours(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Turns by row, cut where rows are missing."""
    groups: list[list[Turn]] = []
    for turn in sorted(turns, key=lambda turn: turn.row):
        if groups and groups[-1][-1].row + 1 == turn.row:
            groups[-1].append(turn)
        else:
            groups.append([turn])
    return groups
