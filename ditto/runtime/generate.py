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
from ditto.runtime.session import Request, Session, Turn


@frozen
class Answer:
    """New tokens of one request; the end token, where there is one, is the last."""

    ids: tuple[int, ...]


@define(eq=False)
class Flight:
    """A request on its way to an answer.

    Args:
        number: in the order of joining.
        request, max_new_tokens: as given.
        made: new tokens so far.
        done: whether the answer is complete.
        draws: random numbers for its tokens; none for greedy.
        asked: tokens asked of the runner; those that were not read yet are on their way.
    """

    number: int
    request: Request
    max_new_tokens: int
    made: list[int] = field(factory=list)
    done: bool = False
    draws: Iterator[float] = field(factory=lambda: iter(()), repr=False)
    asked: int = 0

    def turn(self, row: int) -> Turn:
        """What it computes next."""
        return Turn(row, self.request, past=len(self.request.ids) + self.asked - 1 if self.asked else 0)

    def ask(self) -> float:
        """Count one more token as asked for, and return its random number."""
        self.asked += 1
        return next(self.draws, 0.0)

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
        self._rows: list[Flight | None] = [None] * rows
        self._waiting: deque[Flight] = deque()
        self._unread: deque[tuple[list[Flight], Callable[[], list[int]]]] = deque()
        self._joined = 0
        self._chosen = self._runner.chosen(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    @property
    def busy(self) -> bool:
        """Whether any request is on its way."""
        return bool(self._waiting) or any(self._rows)

    def join(self, request: Request, max_new_tokens: int) -> Flight:
        """Let a request take part from the next step in which there is room.

        Raises:
            PromptError: it is more than the engine takes.
        """
        self._session.limits.check([request], max_new_tokens)
        draws = self._sampling.draws(self._joined, max_new_tokens)
        flight = Flight(self._joined, request, max_new_tokens, draws=draws)
        self._joined += 1
        self._waiting.append(flight)
        return flight

    def step(self) -> list[Flight]:
        """Ask for one more token of every request that has a row, and read those of the oldest step that is still
        unread. Where the runner lets the host lag behind, that is an earlier one.

        Returns:
            The requests that got a token, oldest first.
        """
        lag = 0 if self._processes else self._runner.lag
        if len(self._unread) > lag:  # a request that processes logits has to know its tokens first
            return self._read()
        turns = self._admitted()
        if turns:
            self._ask(turns)
        if self._unread and (len(self._unread) > lag or not turns):
            return self._read()
        return []

    @property
    def _processes(self) -> bool:
        """Whether any request processes its logits: on the host, which cannot lag behind then."""
        there = (flight for flight in (*self._rows, *self._waiting) if flight is not None)
        return any(flight.request.process is not None for flight in there)

    def leave(self, flight: Flight) -> None:
        """End a request early: its answer is what it has."""
        flight.done = True
        if flight in self._waiting:
            self._waiting.remove(flight)
        if flight in self._rows:
            row = self._rows.index(flight)
            self._rows[row] = None
            self._runner.leave(row)

    def _admitted(self) -> list[Turn]:
        """The turns of the next step: those who have a row, and who gets one now."""
        turns = [
            flight.turn(row) for row, flight in enumerate(self._rows) if flight is not None and not flight.asked_all
        ]
        for row, taken in enumerate(self._rows):
            if taken is None and self._waiting:
                more = [*turns, self._waiting[0].turn(row)]
                if not self._runner.takes(more):
                    break
                self._rows[row], turns = self._waiting.popleft(), more
        return turns

    def _ask(self, turns: Sequence[Turn]) -> None:
        flights = [flight for turn in turns if (flight := self._rows[turn.row]) is not None]
        draws = [flight.ask() for flight in flights]
        with self._runner.working():
            logits = _processed(self._runner.step(turns, self._chosen), flights)
            draw = None if self._sampling.is_greedy else self._sent(draws, torch.float32)
            chosen = found = choose(logits, self._sampling, draw)
            if draw is not None:
                chosen = found.clamp(min=0)  # what cannot be sampled is refused when it is read
            if len(turns) == len(self._rows) and all(turn.row == row for row, turn in enumerate(turns)):
                self._chosen.copy_(chosen)
            else:
                self._chosen.index_copy_(0, self._sent([turn.row for turn in turns], torch.int64), chosen)
            self._unread.append((flights, self._runner.reading(found)))

    def _read(self) -> list[Flight]:
        flights, reading = self._unread.popleft()
        moved: list[Flight] = []
        for flight, token in zip(flights, reading(), strict=True):
            if flight.done:  # it ended while this step was on its way
                continue
            if token < 0:
                raise ModelError(
                    f"The logits of prompt {flight.number + 1} are not finite numbers for any of the tokens that new "
                    f"token {len(flight.made) + 1} may be, so none can be sampled.",
                    remedy="build with --dtype bfloat16 or float32, or check the model's generation defaults",
                )
            flight.made.append(token)
            moved.append(flight)
            if token in self._session.tokens.end or len(flight.made) == flight.max_new_tokens:
                self.leave(flight)
        return sorted(moved, key=lambda flight: flight.number)

    def _sent(self, numbers: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(numbers, dtype=dtype).to(self._runner.device, non_blocking=True)


def _processed(logits: Tensor, flights: Sequence[Flight]) -> Tensor:
    """Logits [requests, vocabulary] as each request's processor leaves them."""
    if all(flight.request.process is None for flight in flights):
        return logits
    rows = list(logits.cpu().clone())
    for index, flight in enumerate(flights):
        if flight.request.process is not None:
            rows[index] = flight.request.process(flight.made, rows[index])
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
        flights = [batch.join(request, max_new_tokens) for request in requests]
        while batch.busy:
            batch.step()
    return [Answer(tuple(flight.made)) for flight in flights]
