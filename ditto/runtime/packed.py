"""Reference session for packed engines, in place of the runtime that they are built for.

One step computes the tokens of all sequences at once, prompts first, without padding; keys and values are stored in
blocks of a paged KV cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.engine import EngineTree
from ditto.errors import PromptError
from ditto.runtime.reference import ReferenceSession
from ditto.runtime.session import LlmRunner, Request, RequestLimits, ScheduledRow
from ditto.targets.trtllm.runtime import PackedRuntime
from ditto.targets.trtllm.step import Part


@frozen
class PackedLimits(RequestLimits):
    """Limits of a packed engine; all requests of a batch have equal shares of the prompt table."""

    max_num_tokens: int
    prompt_rows_per_request: int

    @staticmethod
    @override
    def of(tree: EngineTree) -> PackedLimits:
        whole = RequestLimits.of(tree)
        max_num_tokens = tree.limits.max_num_tokens
        return PackedLimits(
            max_batch_size=whole.max_batch_size,
            max_input_len=min(whole.max_input_len, max_num_tokens),
            max_seq_len=whole.max_seq_len,
            max_prompt_embedding_table_size=whole.max_prompt_embedding_table_size,
            vocab_size=whole.vocab_size,
            uncounted=whole.uncounted,
            max_num_tokens=max_num_tokens,
            prompt_rows_per_request=whole.max_prompt_embedding_table_size // whole.max_batch_size,
        )

    @override
    def check(self, requests: Sequence[Request], max_new_tokens: int) -> None:
        super().check(requests, max_new_tokens)
        for number, request in enumerate(requests, 1):
            rows = 0 if request.features is None else len(request.features)
            if rows > self.prompt_rows_per_request:
                raise PromptError(
                    f"the images of prompt {number} need {rows} rows of the prompt table; the engine's "
                    f"{self.max_prompt_embedding_table_size} rows, shared by a batch of {self.max_batch_size}, are "
                    f"{self.prompt_rows_per_request} for each",
                    remedy=f"build with a --prompt-table of at least {rows * self.max_batch_size}",
                )


class PackedSession(ReferenceSession):
    """Runs the networks of packed engines on the CPU."""

    def __init__(self, tree: EngineTree) -> None:
        super().__init__(tree)
        self.limits: PackedLimits = PackedLimits.of(tree)

    @override
    def start(self, batch: int) -> LlmRunner:
        return _PackedRunner(self, batch)


class _PackedRunner(LlmRunner):
    def __init__(self, session: PackedSession, batch: int) -> None:
        (profile,) = session.tree.component("llm").spec.profiles
        self._max_num_tokens = session.limits.max_num_tokens
        self._runtime = PackedRuntime(*session.network("llm"), session.tree.config("llm"), profile, batch)

    @override
    def takes(self, scheduled: Sequence[ScheduledRow]) -> bool:
        return sum(1 if each.past else len(each.request.ids) for each in scheduled) <= self._max_num_tokens

    @override
    def step(self, scheduled: Sequence[ScheduledRow], sampled: Tensor) -> Tensor:
        tokens = sampled.tolist()
        parts: list[Part] = []
        for each in scheduled:
            request = each.request
            ids = (tokens[each.row],) if each.past else request.ids
            parts.append(Part(each.row, ids, each.past, len(request.ids), request.features))
        return self._runtime.step(parts)

    @override
    def leave(self, row: int) -> None:
        self._runtime.release(row)
