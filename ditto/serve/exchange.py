"""The answers to one request of a client, on their way from the scheduler's thread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from attrs import evolve, frozen
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import override

from ditto.errors import DittoError
from ditto.runtime.encoding import EncodedPrompt
from ditto.serve.protocol import Reply, RequestError
from ditto.text.pipeline import AnswerSettings
from ditto.text.scheduler import Completion, Job, Scheduler
from ditto.text.token_report import ReportedToken

# A client that takes nothing for as long as this has left.
_SEND_SECONDS = 30.0

# Index of an answer, and its next piece or its end.
Event = tuple[int, "Piece | Completion | DittoError | None"]


@frozen
class Piece:
    """More of an answer: its text, and what is known of the tokens, if the client asks for it."""

    text: str
    tokens: Sequence[ReportedToken]


class ClientLeftError(Exception):
    """The client has closed the connection."""


async def left(request: Request) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Exchange:
    """The answers to a request: of each prompt, as many as were asked for.

    Args:
        scheduler: runs them.
        took: seconds that it took to prepare each prompt.
        answered: called with each answer.
    Raises:
        BusyError: too many requests wait.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        prompts: Sequence[EncodedPrompt],
        settings: AnswerSettings,
        choices: int,
        deadline: float,
        took: float,
        answered: Callable[[Completion], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._answered = answered
        self._jobs: list[Job] = []
        self._told = [0] * (len(prompts) * choices)  # tokens of each answer that were reported

        def post(index: int, event: Any) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

        def tell(index: int, text: str) -> None:
            reported = self._jobs[index].reported
            post(index, Piece(text, reported[self._told[index] :]))
            self._told[index] = len(reported)

        try:
            for index in range(len(prompts) * choices):
                own = evolve(settings, draw=index % choices)
                job = Job(
                    prompts[index // choices],
                    own,
                    partial(tell, index),
                    partial(post, index),
                    preprocessed=took,
                    deadline=deadline,
                )
                self._jobs.append(job)
                scheduler.submit(job)
        except DittoError:
            self.cancel()
            self._jobs.pop()  # it was not taken: nobody ends it
            raise
        self._prompts = len(prompts)
        self._results: dict[int, Completion] = {}

    def cancel(self) -> None:
        """Give up what is not complete."""
        for job in self._jobs:
            job.cancel()

    async def answers(self, gone: asyncio.Future[None]) -> list[Completion]:
        """All answers.

        Raises:
            DittoError: one of them failed.
            ClientLeftError: `gone` is done.
        """
        while len(self._results) < len(self._jobs):
            await self._next(gone)
        return self._ordered

    async def first(self, gone: asyncio.Future[None]) -> Event:
        """The first event; errors as in `answers`."""
        return await self._next(gone)

    async def chunks(
        self, first: Event, gone: asyncio.Future[None], reply: Reply, with_usage: bool
    ) -> AsyncIterator[dict[str, Any] | str]:
        """The bodies of a stream's events; a failure is the last of them."""
        try:
            for index in range(len(self._jobs)) if reply.is_chat else ():
                yield reply.piece(index, None)
            event: Event | None = first
            while event is not None:
                index, part = event
                if isinstance(part, Completion):
                    rest = (part.logprobs or ())[self._told[index] :]
                    yield reply.piece(index, "", part.finish_reason, rest)
                elif isinstance(part, Piece):
                    yield reply.piece(index, part.text, tokens=part.tokens)
                event = await self._next(gone) if len(self._results) < len(self._jobs) else None
            if with_usage:
                yield reply.end(self._ordered, self._prompts)
            yield "[DONE]"
        except DittoError as error:
            yield RequestError.of(error).body

    @property
    def _ordered(self) -> list[Completion]:
        return [self._results[index] for index in range(len(self._jobs))]

    async def _next(self, gone: asyncio.Future[None]) -> Event:
        """The next event; an answer that ended is kept in `_results`."""
        waiting = asyncio.ensure_future(self._events.get())
        try:
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise ClientLeftError
            index, event = waiting.result()
        finally:
            waiting.cancel()
        if isinstance(event, DittoError):
            self.cancel()
            raise event
        if event is None:  # cancelled: only a client that left does so
            raise ClientLeftError
        if isinstance(event, Completion):
            self._results[index] = event
            self._answered(event)
        return index, event


class EventStream(Response):
    """Server-sent events, which end with the client.

    Args:
        chunks: bodies of events.
        exchange: given up if the client leaves.
        gone: done when the client has left.
        log: called with one word at the end.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncIterator[dict[str, Any] | str],
        exchange: Exchange,
        gone: asyncio.Future[None],
        log: Callable[[str], object],
    ) -> None:
        self.status_code, self.background = 200, None
        self._chunks, self._exchange, self._gone, self._log = chunks, exchange, gone, log
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    @override
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await asyncio.wait_for(send(start), _SEND_SECONDS)
            async for chunk in self._chunks:
                text = chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False)
                body = {"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True}
                await asyncio.wait_for(send(body), _SEND_SECONDS)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            self._log("ended")
        except (ClientLeftError, OSError, asyncio.TimeoutError):
            self._log("left by its client")
        finally:
            self._exchange.cancel()
            self._gone.cancel()
