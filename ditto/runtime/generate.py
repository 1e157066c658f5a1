"""Requests in flight: their prompts first, then one token of each per step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from attrs import define, field, frozen
from torch import Tensor
from typing_extensions import Self

from ditto.errors import ModelError
from ditto.runtime.sampling import GREEDY, Sampling, choose
from ditto.runtime.session import Request, ScheduledRow, Session


@frozen
class Answer:
    """New tokens of one request; the end token, where there is one, is the last."""

    ids: tuple[int, ...]


@define(eq=False)
class SequenceState:
    """A request on its way to an answer.

    Args:
        number: in the order of joining.
        request, max_new_tokens: as given.
        made: new tokens so far.
        done: whether the answer is complete.
        uniforms: random numbers for its tokens; none for greedy.
        asked: tokens asked of the runner; those that were not read yet are on their way.
    """

    number: int
    request: Request
    max_new_tokens: int
    made: list[int] = field(factory=list)
    done: bool = False
    uniforms: Iterator[float] = field(factory=lambda: iter(()), repr=False)
    asked: int = 0

    def scheduled_at(self, row: int) -> ScheduledRow:
        """What it computes next."""
        return ScheduledRow(row, self.request, past=len(self.request.ids) + self.asked - 1 if self.asked else 0)

    def ask(self) -> float:
        """Count one more token as asked for, and return its random number."""
        self.asked += 1
        return next(self.uniforms, 0.0)

    @property
    def asked_all(self) -> bool:
        """Whether as many tokens were asked for as it may have."""
        return self.asked == self.max_new_tokens


class Batch:
    """Rows that requests take when one is free and leave when they are answered.

    A context manager: at its end the runner serves other batches.

    Args:
        session: runs the engines.
        rows: requests in flight at most.
        sampling: how tokens are chosen.
    """

    def __init__(self, session: Session, rows: int, sampling: Sampling = GREEDY) -> None:
        self._session, self._sampling = session, sampling
        self._runner = session.start(rows)
        self._rows: list[SequenceState | None] = [None] * rows
        self._waiting: deque[SequenceState] = deque()
        self._unread: deque[tuple[list[SequenceState], Callable[[], list[int]]]] = deque()
        self._joined = 0
        self._sampled = self._runner.sampled(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    @property
    def busy(self) -> bool:
        """Whether any request is on its way."""
        return bool(self._waiting) or any(self._rows)

    def join(self, request: Request, max_new_tokens: int) -> SequenceState:
        """Let a request take part from the next step in which there is room.

        Raises:
            PromptError: it is more than the engine takes.
        """
        self._session.limits.check([request], max_new_tokens)
        uniforms = self._sampling.uniforms(self._joined, max_new_tokens)
        sequence = SequenceState(self._joined, request, max_new_tokens, uniforms=uniforms)
        self._joined += 1
        self._waiting.append(sequence)
        return sequence

    def step(self) -> list[SequenceState]:
        """Ask for one more token of every request that has a row, and read those of the oldest step that is still
        unread. Where the runner lets the host lag behind, that is an earlier one.

        Returns:
            The requests that got a token, oldest first.
        """
        lookahead = 0 if self._processes else self._runner.lookahead
        if len(self._unread) > lookahead:  # a request that processes logits has to know its tokens first
            return self._read()
        scheduled = self._admitted()
        if scheduled:
            self._ask(scheduled)
        if self._unread and (len(self._unread) > lookahead or not scheduled):
            return self._read()
        return []

    @property
    def _processes(self) -> bool:
        """Whether any request processes its logits: on the host, which cannot lag behind then."""
        there = (sequence for sequence in (*self._rows, *self._waiting) if sequence is not None)
        return any(sequence.request.process is not None for sequence in there)

    def leave(self, sequence: SequenceState) -> None:
        """End a request early: its answer is what it has."""
        sequence.done = True
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        if sequence in self._rows:
            row = self._rows.index(sequence)
            self._rows[row] = None
            self._runner.leave(row)

    def _admitted(self) -> list[ScheduledRow]:
        """The rows of the next step: those in use, and who gets one now."""
        scheduled = [
            sequence.scheduled_at(row)
            for row, sequence in enumerate(self._rows)
            if sequence is not None and not sequence.asked_all
        ]
        for row, taken in enumerate(self._rows):
            if taken is None and self._waiting:
                more = [*scheduled, self._waiting[0].scheduled_at(row)]
                if not self._runner.takes(more):
                    break
                self._rows[row], scheduled = self._waiting.popleft(), more
        return scheduled

    def _ask(self, scheduled: Sequence[ScheduledRow]) -> None:
        sequences = [sequence for each in scheduled if (sequence := self._rows[each.row]) is not None]
        uniforms = [sequence.ask() for sequence in sequences]
        with self._runner.working():
            logits = _processed(self._runner.step(scheduled, self._sampled), sequences)
            uniform = None if self._sampling.is_greedy else self._sent(uniforms, torch.float32)
            sampled = found = choose(logits, self._sampling, uniform)
            if uniform is not None:
                sampled = found.clamp(min=0)  # what cannot be sampled is refused when it is read
            if len(scheduled) == len(self._rows) and all(each.row == row for row, each in enumerate(scheduled)):
                self._sampled.copy_(sampled)
            else:
                self._sampled.index_copy_(0, self._sent([each.row for each in scheduled], torch.int64), sampled)
            self._unread.append((sequences, self._runner.reading(found)))

    def _read(self) -> list[SequenceState]:
        sequences, reading = self._unread.popleft()
        moved: list[SequenceState] = []
        for sequence, token in zip(sequences, reading(), strict=True):
            if sequence.done:  # it ended while this step was on its way
                continue
            if token < 0:
                raise ModelError(
                    f"The logits of prompt {sequence.number + 1} are not finite numbers for any of the tokens that new "
                    f"token {len(sequence.made) + 1} may be, so none can be sampled.",
                    remedy="build with --dtype bfloat16 or float32, or check the model's generation defaults",
                )
            sequence.made.append(token)
            moved.append(sequence)
            if token in self._session.tokens.end or len(sequence.made) == sequence.max_new_tokens:
                self.leave(sequence)
        return sorted(moved, key=lambda sequence: sequence.number)

    def _sent(self, numbers: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(numbers, dtype=dtype).to(self._runner.device, non_blocking=True)


def _processed(logits: Tensor, sequences: Sequence[SequenceState]) -> Tensor:
    """Logits [requests, vocabulary] as each request's processor leaves them."""
    if all(sequence.request.process is None for sequence in sequences):
        return logits
    rows = list(logits.cpu().clone())
    for index, sequence in enumerate(sequences):
        if sequence.request.process is not None:
            rows[index] = sequence.request.process(sequence.made, rows[index])
    return torch.stack(rows).to(logits.device)


def generate(
    session: Session, requests: Sequence[Request], max_new_tokens: int, sampling: Sampling = GREEDY
) -> list[Answer]:
    """A continuation of each request, token by token.

    Args:
        requests: run as one batch; rows may differ in length and in pictures.
        max_new_tokens: per row; a row ends before at an end token.
        sampling: how tokens are chosen; without it, the most likely ones.
    Raises:
        PromptError: the batch is more than the engine takes.
    """
    session.limits.check(requests, max_new_tokens)
    with Batch(session, len(requests), sampling) as batch:
        sequences = [batch.join(request, max_new_tokens) for request in requests]
        while batch.busy:
            batch.step()
    return [Answer(tuple(sequence.made)) for sequence in sequences]
