"""Answers join and leave; a request that fails, is late or is given up harms no other."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from ditto.errors import BusyError, DeadlineError, DeviceError, DittoError, PromptError
from ditto.runtime import open_session
from ditto.runtime.encoding import EncodedPrompt
from ditto.text.detokenizer import IncrementalDetokenizer
from ditto.text.pipeline import AnswerSettings, GenerationPipeline
from ditto.text.scheduler import Completion, Job, Scheduler

DESCRIBE = "USER: <image>\nDescribe this image. ASSISTANT:"
TEXT = "USER: How many shapes are there? ASSISTANT:"


@pytest.fixture(scope="module")
def pipeline(shapes_tree):
    return GenerationPipeline(open_session(shapes_tree, "reference"))


class Asked:
    """A job, its pieces and its end."""

    def __init__(self, scheduler, prompt, tell=None, deadline=None, **settings):
        self.pieces, self.end = [], Future()
        self.first = threading.Event()
        self.job = Job(prompt, AnswerSettings(**settings), tell or self.tell, self.end.set_result, deadline=deadline)
        scheduler.submit(self.job)

    def tell(self, piece):
        self.pieces.append(piece)
        self.first.set()

    def result(self):
        return self.end.result(60)


@pytest.fixture
def scheduler(pipeline):
    scheduler = Scheduler(lambda: pipeline, max_waiting=4)
    yield scheduler
    scheduler.close()


def text(pipeline, prompt=TEXT):
    return pipeline.processor.encode([prompt], [])[0]


def test_pieces_make_up_the_answer(scheduler, pipeline):
    wanted = pipeline.answer([TEXT], max_new_tokens=12)
    asked = Asked(scheduler, text(pipeline), max_new_tokens=12)
    found = asked.result()
    assert (found.text, found.token_ids) == (wanted.answers[0], wanted.tokens[0])
    assert "".join(asked.pieces) == found.text


def test_a_request_that_fails_harms_no_other(scheduler, pipeline):
    good = Asked(scheduler, text(pipeline), max_new_tokens=40)
    long = Asked(scheduler, text(pipeline, "long " * 300))
    broken = Asked(scheduler, EncodedPrompt(None))  # a fault of ours
    assert isinstance(long.result(), PromptError)
    failed = broken.result()
    assert type(failed) is DittoError and "unexpectedly" in failed.cause
    assert isinstance(good.result(), Completion)


def test_a_listener_that_fails_harms_no_other(scheduler, pipeline):
    def tell(piece):
        raise RuntimeError(piece)

    bad = Asked(scheduler, text(pipeline), tell, max_new_tokens=40)
    good = Asked(scheduler, text(pipeline), max_new_tokens=12)
    assert bad.result() is None
    assert isinstance(good.result(), Completion)


def test_an_answer_that_is_given_up_ends_soon(scheduler, pipeline):
    asked = Asked(scheduler, text(pipeline), max_new_tokens=150, stops=["never"])
    assert asked.first.wait(30)
    asked.job.cancel()
    assert asked.result() is None
    assert scheduler.counts == (0, 0)


def test_a_late_answer_fails_in_the_queue_and_in_progress(scheduler, pipeline):
    waits = Asked(scheduler, text(pipeline), deadline=time.monotonic() - 1)
    assert isinstance(waits.result(), DeadlineError)


def test_the_queue_is_bounded(scheduler, pipeline, monkeypatch):
    """Two run, four wait, and the next is refused at once."""
    release, entered = threading.Event(), threading.Semaphore(0)
    requests = GenerationPipeline.requests

    def blocked(self, encoded):
        entered.release()
        release.wait(30)
        return requests(self, encoded)

    monkeypatch.setattr(GenerationPipeline, "requests", blocked)
    running = Asked(scheduler, text(pipeline), max_new_tokens=2)
    assert entered.acquire(timeout=30)
    others = [Asked(scheduler, text(pipeline), max_new_tokens=2) for _ in range(4)]
    assert scheduler.counts[1] == 4
    with pytest.raises(BusyError, match="4 requests wait already"):
        Asked(scheduler, text(pipeline))
    others[0].job.cancel()
    release.set()
    assert others[0].result() is None
    assert all(isinstance(each.result(), Completion) for each in (running, *others[1:]))


def test_a_step_that_fails_ends_what_was_in_progress_and_the_next_request_is_answered(pipeline, monkeypatch):
    from ditto.text.decoding import Decoder

    scheduler, step = Scheduler(lambda: pipeline), Decoder.step
    failing = iter([True])

    def broken(self):
        if next(failing, False):
            raise RuntimeError("out of memory")
        return step(self)

    monkeypatch.setattr(Decoder, "step", broken)
    assert "unexpectedly" in Asked(scheduler, text(pipeline), max_new_tokens=2).result().cause
    assert isinstance(Asked(scheduler, text(pipeline), max_new_tokens=2).result(), Completion)
    scheduler.close()


def test_closing_finishes_what_was_taken(pipeline):
    scheduler = Scheduler(lambda: pipeline)
    asked = [Asked(scheduler, text(pipeline), max_new_tokens=3) for _ in range(3)]
    scheduler.close()
    assert all(isinstance(each.end.result(0), Completion) for each in asked)
    with pytest.raises(BusyError, match="the model is closed"):
        scheduler.submit(asked[0].job)


def test_a_pipeline_that_cannot_be_created_is_the_callers_error():
    def fail():
        raise PromptError("no such thing")

    with pytest.raises(PromptError, match="no such thing"):
        Scheduler(fail)


class Panic(BaseException):
    """As Rust's tokenizers raise it."""


def test_a_session_that_cannot_start_is_the_callers_error(pipeline, monkeypatch):
    def start(rows):
        raise DeviceError("too little memory")

    monkeypatch.setattr(pipeline, "session", SimpleNamespace(limits=pipeline.session.limits, start=start))
    with pytest.raises(DeviceError, match="too little memory"):
        Scheduler(lambda: pipeline)


def test_a_session_that_no_longer_starts_ends_those_that_wait(pipeline, monkeypatch):
    scheduler = Scheduler(lambda: pipeline)

    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("ditto.text.scheduler.Decoder", fail)
    assert "unexpectedly" in Asked(scheduler, text(pipeline)).result().cause
    monkeypatch.undo()
    assert isinstance(Asked(scheduler, text(pipeline), max_new_tokens=2).result(), Completion)
    scheduler.close()


def test_a_panic_of_the_thread_ends_every_job(pipeline, monkeypatch):
    def fail():
        raise Panic

    monkeypatch.setattr("threading.excepthook", lambda _: None)
    release = threading.Event()
    monkeypatch.setattr(Scheduler, "_serve_all", lambda *_: release.wait(30) and fail())
    dying = Scheduler(lambda: pipeline)
    asked = Asked(dying, text(pipeline))
    release.set()
    assert isinstance(asked.result(), BusyError)
    with pytest.raises(BusyError, match="closed"):
        Asked(dying, text(pipeline))


@pytest.mark.parametrize("fault", [RuntimeError, Panic])
def test_a_fault_in_the_text_of_one_answer_harms_no_other(fault, scheduler, pipeline, monkeypatch):
    add = IncrementalDetokenizer.add

    def broken(self, token):
        if "never" in self._stops:
            raise fault("cannot decode")
        return add(self, token)

    monkeypatch.setattr(IncrementalDetokenizer, "add", broken)
    good = Asked(scheduler, text(pipeline), max_new_tokens=12)
    bad = Asked(scheduler, text(pipeline), max_new_tokens=12, stops=["never"])
    failed = bad.result()
    assert type(failed) is DittoError and isinstance(failed.__cause__, fault)
    assert isinstance(good.result(), Completion)


def test_a_panic_before_an_answer_begins_harms_no_other(scheduler, pipeline, monkeypatch):
    prepared = GenerationPipeline.prepared

    def broken(self, encoded, requests, settings):
        if settings.max_new_tokens == 7:
            raise Panic
        return prepared(self, encoded, requests, settings)

    monkeypatch.setattr(GenerationPipeline, "prepared", broken)
    bad = Asked(scheduler, text(pipeline), max_new_tokens=7)
    good = Asked(scheduler, text(pipeline), max_new_tokens=2)
    assert isinstance(bad.result().__cause__, Panic)
    assert isinstance(good.result(), Completion)
