"""Requests in flight: their prompts first, then one token of each per step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import define, field, frozen

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
    """

    number: int
    request: Request
    max_new_tokens: int
    made: list[int] = field(factory=list)
    done: bool = False

    def turn(self, row: int) -> Turn:
        """What it computes next."""
        if not self.made:
            return Turn(row, self.request, self.request.ids, past=0)
        return Turn(row, self.request, (self.made[-1],), past=len(self.request.ids) + len(self.made) - 1)


class Batch:
    """Rows that requests take when one is free and leave when they are answered.

    Args:
        session: runs the engines.
        rows: requests in flight at most.
    """

    def __init__(self, session: Session, rows: int) -> None:
        self._session = session
        self._runner = session.start(rows)
        self._rows: list[Flight | None] = [None] * rows
        self._waiting: deque[Flight] = deque()
        self._joined = 0

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
        flight = Flight(self._joined, request, max_new_tokens)
        self._joined += 1
        self._waiting.append(flight)
        return flight

    def step(self) -> list[Flight]:
        """One new token for every request that has a row. Returns those requests, oldest first."""
        turns = self._admitted()
        moved: list[Flight] = []
        for turn, chosen in zip(turns, self._runner.step(turns).argmax(-1).tolist(), strict=True):
            flight = self._rows[turn.row]
            assert flight is not None
            flight.made.append(chosen)
            flight.done = chosen in self._session.tokens.end or len(flight.made) == flight.max_new_tokens
            if flight.done:
                self._rows[turn.row] = None
                self._runner.leave(turn.row)
            moved.append(flight)
        return sorted(moved, key=lambda flight: flight.number)

    def _admitted(self) -> list[Turn]:
        """The turns of the next step: those who have a row, and who gets one now."""
        turns = [flight.turn(row) for row, flight in enumerate(self._rows) if flight is not None]
        for row, taken in enumerate(self._rows):
            if taken is None and self._waiting:
                more = [*turns, self._waiting[0].turn(row)]
                if not self._runner.takes(more):
                    break
                self._rows[row], turns = self._waiting.popleft(), more
        return turns


def generate(session: Session, requests: Sequence[Request], max_new_tokens: int) -> list[Answer]:
    """The most likely continuation of each request, token by token.

    Args:
        requests: run as one batch; rows may differ in length and in pictures.
        max_new_tokens: per row; a row ends before at an end token.
    Raises:
        PromptError: the batch is more than the engine takes.
    """
    session.limits.check(requests, max_new_tokens)
    batch = Batch(session, len(requests))
    flights = [batch.join(request, max_new_tokens) for request in requests]
    while batch.busy:
        batch.step()
    return [Answer(tuple(flight.made)) for flight in flights]
