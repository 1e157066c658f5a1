"""Answers of one request reach the event loop, in order; what failed or was left gives the others up."""

from __future__ import annotations

import asyncio
import time

import pytest

from ditto.errors import BusyError, PromptError
from ditto.runtime.encoding import EncodedPrompt
from ditto.serve.exchange import ClientLeftError, Exchange
from ditto.serve.protocol import Reply
from ditto.text.pipeline import AnswerSettings
from ditto.text.scheduler import Completion


class Scheduler:
    """Takes jobs and leaves them to the test."""

    def __init__(self, room=9):
        self.jobs, self.room = [], room

    def submit(self, job):
        if len(self.jobs) == self.room:
            raise BusyError("full")
        self.jobs.append(job)


def done(text):
    return Completion(text, (1, 2), "stop", 3, {})


def exchange(scheduler, prompts=1, choices=1, answered=lambda answer: None):
    given = [EncodedPrompt((number,)) for number in range(prompts)]
    return Exchange(scheduler, given, AnswerSettings(), choices, time.monotonic() + 60, 0.0, answered)


def run(work):
    async def main():
        return await work(asyncio.get_running_loop().create_future())

    return asyncio.run(main())


def test_answers_come_in_the_order_of_prompts_and_choices():
    async def work(gone):
        scheduler, counted = Scheduler(), []
        asked = exchange(scheduler, 2, 2, counted.append)
        assert [(job.prompt.token_ids, job.settings.draw) for job in scheduler.jobs] == [
            ((0,), 0),
            ((0,), 1),
            ((1,), 0),
            ((1,), 1),
        ]
        for number in (2, 0, 3, 1):
            scheduler.jobs[number].tell("x")
            scheduler.jobs[number].end(done(str(number)))
        found = await asked.answers(gone)
        assert [answer.text for answer in found] == ["0", "1", "2", "3"] and len(counted) == 4

    run(work)


def test_a_failure_gives_the_others_up():
    async def work(gone):
        scheduler = Scheduler()
        asked = exchange(scheduler, 2)
        scheduler.jobs[1].end(PromptError("too long"))
        with pytest.raises(PromptError, match="too long"):
            await asked.answers(gone)
        assert all(job.cancelled for job in scheduler.jobs)

    run(work)


def test_a_full_queue_gives_what_was_taken_up():
    async def work(gone):
        scheduler = Scheduler(room=2)
        with pytest.raises(BusyError):
            exchange(scheduler, 3)
        assert all(job.cancelled for job in scheduler.jobs)

    run(work)


def test_a_client_that_leaves_ends_the_wait():
    async def work(gone):
        asked = exchange(Scheduler())
        asyncio.get_running_loop().call_later(0.05, gone.set_result, None)
        with pytest.raises(ClientLeftError):
            await asked.answers(gone)

    run(work)


def test_a_stream_that_fails_ends_with_the_error():
    async def work(gone):
        scheduler = Scheduler()
        asked = exchange(scheduler)
        scheduler.jobs[0].tell("A")
        first = await asked.first(gone)
        scheduler.jobs[0].end(PromptError("too hot"))
        chunks = [chunk async for chunk in asked.chunks(first, gone, Reply("id", 0, "m", True), True)]
        assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:-1]] == ["", "A"]
        assert chunks[-1]["error"]["message"] == "Too hot."

    run(work)
