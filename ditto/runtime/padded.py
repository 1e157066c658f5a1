"""Runner with padded rows, for engines with one contiguous KV cache per row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.network import Spec
from ditto.ops.spans import SPAN_IDS
from ditto.runtime.encoding import TokenPositions
from ditto.runtime.session import LlmRunner, ScheduledRow, Session


@frozen(eq=False)
class PaddedPrompt:
    """A prompt of one row.

    Args:
        ids: token ids.
        positions: of the tokens; None if they are the tokens' indices.
        spans: ids of the tokens' spans, int32 [S], or None.
    """

    ids: Sequence[int]
    positions: TokenPositions | None = None
    spans: Tensor | None = None


class PaddedRunner(LlmRunner):
    """A runner that prefills neighbouring rows in one call and decodes all rows in another.

    Args:
        session: source of the tokens, limits and prompt table shape.
        batch: number of rows.
    """

    def __init__(self, session: Session, batch: int) -> None:
        self._batch = batch
        self._cached = [0] * batch  # KV length of each row
        self._deltas = [0] * batch  # difference between position and KV length of each row
        self._position_axes = session.limits.position_axes
        self._tokens, self._limits = session.tokens, session.limits
        table = session.tree.component("llm").inputs.get("prompt_embedding_table")
        width = 0 if table is None else int(Spec.parse(table).shape[1])  # type: ignore[arg-type]
        self._no_images = torch.zeros(1, width, dtype=session.table_dtype, device=self.device)

    @abstractmethod
    def run(self, rows: slice, given: Mapping[str, Tensor]) -> Tensor:
        """Run the language model on new tokens of neighbouring rows.

        Args:
            rows: B rows of the batch.
            given: tensors by the names of the engine's inputs, and some that it may not have:
                input_ids: int32 [B, S], rows padded at the end.
                position_ids: int32 [B, S], or [axes, B, S] if each token has several positions.
                last_token_ids: int32 [B], index of each row's last real token.
                write_indices: int32 [B], KV length of each row.
                prompt_embedding_table: [image tokens, width], at least one row.
                span_ids: int32 [B, S], ids of the tokens' spans.
        Returns:
            float32 [B, vocabulary] on `device`, valid until the next call.
        """

    def run_prompts(self, rows: slice, prompts: Sequence[PaddedPrompt], table: Tensor | None) -> Tensor:
        """Run the language model on the prompts of neighbouring rows, whose caches are empty.

        Args:
            rows: rows of the batch.
            prompts: of each row.
            table: the prompt embedding table, as in `run`; None if there are no images.
        Returns:
            Logits, as in `run`.
        """
        return self._run_padded(rows, prompts, max(len(prompt.ids) for prompt in prompts), table)

    def _run_padded(self, rows: slice, prompts: Sequence[PaddedPrompt], width: int, table: Tensor | None) -> Tensor:
        """Run prompts, all padded to `width` tokens."""
        padded = [[*prompt.ids, *[self._tokens.pad] * (width - len(prompt.ids))] for prompt in prompts]
        last = torch.tensor([len(prompt.ids) - 1 for prompt in prompts], dtype=torch.int32)
        given = {
            "input_ids": torch.tensor(padded, dtype=torch.int32),
            "position_ids": self._padded_positions(prompts, width),
            "last_token_ids": last,
            "write_indices": torch.zeros_like(last),
            "prompt_embedding_table": self._no_images if table is None else table,
            SPAN_IDS: padded_spans(prompts, width),
        }
        return self.run(rows, given)

    def _padded_positions(self, prompts: Sequence[PaddedPrompt], width: int) -> Tensor:
        """Positions of prompts padded to `width` tokens, as in `run`."""
        indices = torch.arange(width, dtype=torch.int32)
        if self._position_axes == 1:
            return indices.repeat(len(prompts), 1)
        all_positions = [prompt.positions for prompt in prompts]
        rows = [
            indices.expand(self._position_axes, -1) if each is None else each.resized(width) for each in all_positions
        ]
        return torch.stack(rows, dim=1)

    def _next_positions(self, cached: Sequence[int]) -> Tensor:
        """Positions of one token after `cached` tokens of every row, as in `run`."""
        next_ones = torch.tensor([count + delta for count, delta in zip(cached, self._deltas)], dtype=torch.int32)
        return next_ones[:, None] if self._position_axes == 1 else next_ones[:, None].repeat(self._position_axes, 1, 1)

    def run_next(self, sampled: Tensor, cached: Sequence[int], moving: Sequence[bool]) -> Tensor:
        """Run the language model on one token of every row.

        Args:
            sampled: int64 [B], on `device`.
            cached: KV length of each row.
            moving: which rows keep their token; other rows compute a filler token, overwritten by the next one.
        Returns:
            Logits, as in `run`.
        """
        del moving
        written = torch.tensor(cached, dtype=torch.int32)
        first = torch.zeros_like(written)
        ids = sampled.to(torch.int32)[:, None]
        given = {
            "input_ids": ids,
            "position_ids": self._next_positions(cached),
            "last_token_ids": first,
            "write_indices": written,
            "prompt_embedding_table": self._no_images,
            SPAN_IDS: torch.zeros_like(ids),  # new tokens are text
        }
        return self.run(slice(0, self._batch), given)

    @override
    def takes(self, scheduled: Sequence[ScheduledRow]) -> bool:
        return sum(_table_rows(each) for each in scheduled) <= self._limits.max_prompt_embedding_table_size

    @override
    def step(self, scheduled: Sequence[ScheduledRow], sampled: Tensor) -> Tensor:
        next_tokens = [each for each in scheduled if each.past]
        if len(next_tokens) == self._batch:  # they are in row order
            return self._run_next(next_tokens, sampled)
        groups = _neighbours([each for each in scheduled if not each.past])
        if groups == [list(scheduled)]:
            return self._run_prompts(scheduled, slice(scheduled[0].row, scheduled[-1].row + 1))
        found: dict[int, Tensor] = {}
        for prompts in groups:
            logits = self._run_prompts(prompts, slice(prompts[0].row, prompts[-1].row + 1))
            found.update((each.row, row.clone()) for each, row in zip(prompts, logits, strict=True))
        if next_tokens:
            logits = self._run_next(next_tokens, sampled)
            found.update((each.row, logits[each.row]) for each in next_tokens)
        return torch.stack([found[each.row] for each in scheduled])

    @override
    def leave(self, row: int) -> None:
        self._cached[row] = 0

    def _run_prompts(self, scheduled: Sequence[ScheduledRow], rows: slice) -> Tensor:
        prompts: list[PaddedPrompt] = []
        parts: list[Tensor] = []
        offset = 0
        for each in scheduled:
            ids, features = each.request.ids, each.request.features
            # All prompts share one table: virtual ids are offset by the rows of the prompts before.
            moves = offset and features is not None
            vocab_size = self._tokens.vocab_size
            shared = [token + offset if token >= vocab_size else token for token in ids] if moves else ids
            prompts.append(PaddedPrompt(shared, each.request.positions, each.request.spans))
            if features is not None:
                parts.append(features.to(self._no_images))
                offset += len(features)
            positions = each.request.positions
            self._cached[each.row], self._deltas[each.row] = len(ids), 0 if positions is None else positions.delta
        return self.run_prompts(rows, prompts, torch.cat(parts) if parts else None)

    def _run_next(self, scheduled: Sequence[ScheduledRow], sampled: Tensor) -> Tensor:
        """Logits of every row; rows that are not scheduled compute a filler token."""
        moving = [False] * self._batch
        for each in scheduled:
            self._cached[each.row], moving[each.row] = each.past, True
        logits = self.run_next(sampled, self._cached, moving)
        for each in scheduled:
            self._cached[each.row] += 1
        return logits


def padded_spans(prompts: Sequence[PaddedPrompt], width: int) -> Tensor:
    """Span ids of prompts padded to `width` tokens, as in `PaddedRunner.run`."""
    spans = torch.zeros(len(prompts), width, dtype=torch.int32)
    for row, prompt in zip(spans, prompts, strict=True):
        if prompt.spans is not None:
            row[: len(prompt.ids)] = prompt.spans[: len(prompt.ids)]
    return spans


def _table_rows(each: ScheduledRow) -> int:
    return 0 if each.past or each.request.features is None else len(each.request.features)


def _neighbours(scheduled: Sequence[ScheduledRow]) -> list[list[ScheduledRow]]:
    """Groups of scheduled rows with consecutive row numbers."""
    groups: list[list[ScheduledRow]] = []
    for each in sorted(scheduled, key=lambda each: each.row):
        if groups and groups[-1][-1].row + 1 == each.row:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups
