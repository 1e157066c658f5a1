"""Continuous batching: prompts first, then one token of each request per step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from attrs import define, field, frozen
from torch import Tensor
from typing_extensions import Self

from ditto.errors import DittoError, ModelError, as_ditto
from ditto.runtime.sampling import GREEDY, Sampling, TokenLogprobs, choose, log_probabilities
from ditto.runtime.session import Request, ScheduledRow, Session


@frozen
class Answer:
    """Generated tokens of one request, including the end token if there is one."""

    ids: tuple[int, ...]


@define(eq=False)
class SequenceState:
    """Generation state of one request.

    Args:
        number: index in the order of joining.
        request, max_new_tokens, sampling: the arguments of `Batch.join`.
        made: tokens generated and read so far.
        logprobs: of each of them, if the request asks for it.
        done: whether the request has left: its answer is complete, was cancelled, or failed.
        error: why it failed; other requests of the batch go on.
        uniforms: random numbers for its tokens; empty for greedy sampling.
        asked: tokens requested from the runner, including those not read yet.
    """

    number: int
    request: Request
    max_new_tokens: int
    sampling: Sampling = GREEDY
    made: list[int] = field(factory=list)
    logprobs: list[TokenLogprobs] = field(factory=list)
    done: bool = False
    error: DittoError | None = None
    uniforms: Iterator[float] = field(factory=lambda: iter(()), repr=False)
    asked: int = 0

    def scheduled_at(self, row: int) -> ScheduledRow:
        """The work of its next step, in row `row`."""
        return ScheduledRow(row, self.request, past=len(self.request.ids) + self.asked - 1 if self.asked else 0)

    def ask(self) -> float:
        """Count one more requested token and return its random number."""
        self.asked += 1
        return next(self.uniforms, 0.0)

    @property
    def asked_all(self) -> bool:
        """Whether all of `max_new_tokens` tokens have been requested."""
        return self.asked == self.max_new_tokens


# Reads the log-probabilities of one step, by the index of the request in it.
Report = Callable[[], dict[int, TokenLogprobs]]


class Batch:
    """A batch whose rows requests join when one is free and leave when they are complete.

    A context manager: its exit releases the runner for other batches.

    Args:
        session: runs the engines.
        rows: maximum number of requests in flight.
    """

    def __init__(self, session: Session, rows: int) -> None:
        self._session = session
        self._runner = session.start(rows)
        self._rows: list[SequenceState | None] = [None] * rows
        self._waiting: deque[SequenceState] = deque()
        self._unread: deque[tuple[list[SequenceState], Callable[[], list[int]], Report]] = deque()
        self._joined = 0
        self._sampled = self._runner.sampled(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._waiting) or any(self._rows)

    def join(
        self, request: Request, max_new_tokens: int, sampling: Sampling = GREEDY, draw: int | None = None
    ) -> SequenceState:
        """Queue a request; it runs from the first step that has a free row.

        Args:
            max_new_tokens: limit of its answer; an end token ends it earlier.
            sampling: how its tokens are chosen.
            draw: which random numbers of the seed it gets; by default its index in the order of joining.
        Raises:
            PromptError: the request exceeds a limit of the engine.
        """
        self._session.limits.check([request], max_new_tokens)
        uniforms = sampling.uniforms(self._joined if draw is None else draw, max_new_tokens)
        sequence = SequenceState(self._joined, request, max_new_tokens, sampling, uniforms=uniforms)
        self._joined += 1
        self._waiting.append(sequence)
        return sequence

    def step(self) -> list[SequenceState]:
        """Request one more token of every row, and read the tokens of the oldest unread step.

        That is an earlier step where the runner has lookahead.

        Returns:
            The requests that received a token or failed, oldest first.
        """
        lookahead = 0 if self._processes else self._runner.lookahead
        if len(self._unread) > lookahead:  # a logits processor needs the earlier tokens first
            return self._read()
        scheduled = self._admitted()
        if scheduled:
            self._ask(scheduled)
        if self._unread and (len(self._unread) > lookahead or not scheduled):
            return self._read()
        return []

    @property
    def _processes(self) -> bool:
        """Whether any request has a logits processor: it runs on the host, so there is no lookahead."""
        there = (sequence for sequence in (*self._rows, *self._waiting) if sequence is not None)
        return any(sequence.request.process is not None for sequence in there)

    def leave(self, sequence: SequenceState) -> None:
        """End a request with the tokens that it has so far."""
        sequence.done = True
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        if sequence in self._rows:
            row = self._rows.index(sequence)
            self._rows[row] = None
            self._runner.leave(row)

    def _admitted(self) -> list[ScheduledRow]:
        """Rows of the next step: rows in use, then newly admitted requests."""
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
            logits = self._runner.step(scheduled, self._sampled)
            found = self._chosen(_processed(logits, sequences), sequences, uniforms)
            sampled = found.clamp(min=0)  # an invalid row (-1) is reported when it is read
            if len(scheduled) == len(self._rows) and all(each.row == row for row, each in enumerate(scheduled)):
                self._sampled.copy_(sampled)
            else:
                self._sampled.index_copy_(0, self._sent([each.row for each in scheduled], torch.int64), sampled)
            report = self._report(logits, sampled, sequences)
            self._unread.append((sequences, self._runner.reading(found), report))

    def _chosen(self, logits: Tensor, sequences: Sequence[SequenceState], uniforms: Sequence[float]) -> Tensor:
        """The next token of each row, as in `choose`; rows with the same settings are chosen together."""
        groups: dict[Sampling, list[int]] = {}
        for index, sequence in enumerate(sequences):
            groups.setdefault(sequence.sampling, []).append(index)
        found = torch.empty(len(sequences), dtype=torch.int64, device=logits.device)
        for sampling, members in groups.items():
            uniform = None
            if not sampling.is_greedy:
                uniform = self._sent([uniforms[index] for index in members], torch.float32)
            if len(groups) == 1:
                return choose(logits, sampling, uniform)
            places = self._sent(members, torch.int64)
            found[places] = choose(logits[places], sampling, uniform)
        return found

    def _report(self, logits: Tensor, sampled: Tensor, sequences: Sequence[SequenceState]) -> Report:
        """A callable that reads what the requests that ask for it are told about their tokens, by index."""
        counts = {
            index: sequence.request.top_logprobs
            for index, sequence in enumerate(sequences)
            if sequence.request.top_logprobs is not None
        }
        if not counts:
            return dict
        places = self._sent(list(counts), torch.int64)
        values, ids = log_probabilities(logits[places], sampled[places], max(counts.values()))
        read_values, read_ids = self._runner.reading(values), self._runner.reading(ids)

        def report() -> dict[int, TokenLogprobs]:
            rows = zip(counts.items(), read_values(), read_ids(), strict=True)
            return {
                index: TokenLogprobs(own, tuple(zip(tokens[:count], most[:count], strict=True)))
                for (index, count), (own, *most), tokens in rows
            }

        return report

    def _read(self) -> list[SequenceState]:
        sequences, reading, report = self._unread.popleft()
        moved: list[SequenceState] = []
        logprobs = report()
        for index, (sequence, token) in enumerate(zip(sequences, reading(), strict=True)):
            if sequence.done:  # ended while this step was in flight
                continue
            moved.append(sequence)
            if token < 0 and sequence.error is None:
                sequence.error = ModelError(
                    f"The logits of prompt {sequence.number + 1} are not finite numbers where new token "
                    f"{len(sequence.made) + 1} is chosen.",
                    remedy="build with --dtype bfloat16 or float32, or check the model's generation defaults",
                )
            if sequence.error is not None:
                self.leave(sequence)
                continue
            sequence.made.append(token)
            if index in logprobs:
                sequence.logprobs.append(logprobs[index])
            if token in self._session.tokens.end or len(sequence.made) == sequence.max_new_tokens:
                self.leave(sequence)
        return sorted(moved, key=lambda sequence: sequence.number)

    def _sent(self, numbers: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(numbers, dtype=dtype).to(self._runner.device, non_blocking=True)


def _processed(logits: Tensor, sequences: Sequence[SequenceState]) -> Tensor:
    """Logits [requests, vocabulary] after the logits processor of each request."""
    if all(sequence.request.process is None for sequence in sequences):
        return logits
    rows = list(logits.cpu().clone())
    for index, sequence in enumerate(sequences):
        if sequence.request.process is not None:
            try:
                rows[index] = sequence.request.process(sequence.made, rows[index])
            except Exception as error:  # of this request alone
                sequence.error = as_ditto(error)
    return torch.stack(rows).to(logits.device)


def generate(
    session: Session, requests: Sequence[Request], max_new_tokens: int, sampling: Sampling = GREEDY
) -> list[Answer]:
    """Generate a continuation of each request.

    Args:
        requests: run as one batch; they may differ in length and number of images.
        max_new_tokens: limit per request; an end token ends it earlier.
        sampling: how tokens are chosen; greedy by default.
    Raises:
        PromptError: the batch exceeds a limit of the engine.
        ModelError: logits are not finite numbers.
    """
    session.limits.check(requests, max_new_tokens)
    with Batch(session, len(requests)) as batch:
        sequences = [batch.join(request, max_new_tokens, sampling) for request in requests]
        while batch.busy:
            for sequence in batch.step():
                if sequence.error is not None:
                    raise sequence.error
    return [Answer(tuple(sequence.made)) for sequence in sequences]
