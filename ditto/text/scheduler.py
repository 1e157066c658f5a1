"""Scheduler: one thread that runs a session, and the answers that other threads wait for."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from attrs import define, field, frozen
from loguru import logger

from ditto.errors import BusyError, DeadlineError, DittoError, as_ditto
from ditto.runtime.encoding import EncodedPrompt
from ditto.text.decoding import AnswerState, Decoder, Tell
from ditto.text.pipeline import AnswerSettings, GenerationPipeline
from ditto.text.token_report import ReportedToken

End = Callable[["Completion | DittoError | None"], None]


@frozen
class Completion:
    """The answer to one prompt.

    Args:
        text: without special tokens.
        token_ids: ids of the new tokens, the end token included.
        finish_reason: `stop` at an end token or a stop string, `length` at the limit.
        prompt_tokens: number of tokens of the prompt, image tokens included.
        seconds: wall time: `preprocess`, `queue` before it was admitted, `vision`, `first_token` from admission to the
            first token, and `total`.
        logprobs: of each new token; None if they were not asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    seconds: Mapping[str, float]
    logprobs: tuple[ReportedToken, ...] | None = None

    @property
    def completion_tokens(self) -> int:
        """Number of new tokens, the end token included."""
        return len(self.token_ids)


@define(eq=False)
class Job:
    """An answer that was asked for.

    Args:
        prompt: with its preprocessed images.
        settings: of the answer.
        tell: called with each new piece of its text, in the scheduler's thread; must not block.
        end: called once, in the same thread, with the answer, or the reason why there is none; None if it was
            cancelled.
        preprocessed: seconds that preprocessing took.
        deadline: time in seconds, of `time.monotonic`, at which it fails if it is not complete.
    """

    prompt: EncodedPrompt
    settings: AnswerSettings
    tell: Tell
    end: End
    preprocessed: float = 0.0
    deadline: float | None = None
    _cancelled: bool = False
    _submitted: float = field(factory=time.monotonic)
    _seconds: dict[str, float] = field(factory=dict)
    _admitted: float = 0.0
    _answer: AnswerState | None = None

    def cancel(self) -> None:
        """Give the answer up; the engine stops working on it after the current step."""
        self._cancelled = True

    @property
    def reported(self) -> Sequence[ReportedToken]:
        """What is known of its tokens so far; for `tell`."""
        return () if self._answer is None else self._answer.reported

    @property
    def cancelled(self) -> bool:
        """Whether it was given up."""
        return self._cancelled


class Scheduler:
    """Runs a session in one thread: requests join and leave its rows between steps.

    While answers are in progress, at most one new request is admitted before each step, so that a step takes at most
    one prompt and its images longer; without any, all that fit are admitted at once.

    Args:
        pipeline: creates the pipeline, in the thread.
        rows: maximum number of answers in progress; None for the engine's batch size.
        max_waiting: maximum number of requests that wait for a row; None for no limit.
    Raises:
        DittoError: `pipeline` failed, or its session cannot start.
    """

    def __init__(
        self, pipeline: Callable[[], GenerationPipeline], rows: int | None = None, max_waiting: int | None = None
    ) -> None:
        self._rows, self._max_waiting = rows, max_waiting
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._closing = False
        ready: Future[GenerationPipeline] = Future()
        self._thread = threading.Thread(target=self._run, args=(pipeline, ready), name="ditto-scheduler", daemon=True)
        self._thread.start()
        self.pipeline = ready.result()

    @property
    def places(self) -> float:
        """Requests that may run or wait at once; infinite without a limit."""
        return self.rows + (math.inf if self._max_waiting is None else self._max_waiting)

    @property
    def rows(self) -> int:
        """Maximum number of answers in progress."""
        return self._rows or self.pipeline.session.limits.max_batch_size

    @property
    def counts(self) -> tuple[int, int]:
        """Number of requests in progress, and of those that wait."""
        return len(self._running), len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread runs and takes requests."""
        return self._thread.is_alive() and not self._closing

    def submit(self, job: Job) -> None:
        """Queue a request.

        Raises:
            BusyError: the queue is full, or the scheduler is closed.
        """
        with self._changed:
            if not self.alive:
                raise BusyError("the model is closed and takes no requests", remedy="load it again")
            if self._max_waiting is not None and len(self._waiting) >= self._max_waiting:
                raise BusyError(f"{len(self._waiting)} requests wait already", remedy="try again later")
            self._waiting.append(job)
            self._changed.notify()

    def close(self, wait: bool = True) -> None:
        """Take no more requests, finish those that were taken, and end the thread.

        Args:
            wait: whether to wait for the thread.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def cancel_all(self) -> None:
        """Give all requests up."""
        with self._changed:
            for job in (*self._waiting, *self._running):
                job.cancel()

    def _run(self, pipeline: Callable[[], GenerationPipeline], ready: Future[GenerationPipeline]) -> None:
        try:
            created = pipeline()
            rows = self._rows or created.session.limits.max_batch_size
            with Decoder(created.session, created.tokenizer, rows):
                pass  # a session that cannot start is the caller's error, not that of each request
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(created)
        try:
            self._serve_all(created, rows)
        finally:  # whatever happened, nobody waits for ever
            with self._changed:
                self._closing = True
                left, self._running = [*self._running, *self._waiting], []
                self._waiting.clear()
            for job in left:
                _finish(
                    job, BusyError("the model was closed by a fault", remedy="look into the log, and load it again")
                )

    def _serve_all(self, pipeline: GenerationPipeline, rows: int) -> None:
        """Serve until the scheduler is closed and nothing waits."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
            try:
                with Decoder(pipeline.session, pipeline.tokenizer, rows) as decoder:
                    self._serve(pipeline, decoder, rows)
            except BaseException as error:  # a fault of the session: nothing in progress can be answered
                failed, self._running = self._running, []
                if not failed:  # it does not even start: then those that wait cannot be answered either
                    with self._changed:
                        failed = list(self._waiting)
                        self._waiting.clear()
                reason = as_ditto(error)
                for job in failed:
                    _finish(job, reason)

    def _serve(self, pipeline: GenerationPipeline, decoder: Decoder, rows: int) -> None:
        """Serve until nothing is in progress and the queue is empty."""
        while True:
            self._admit(pipeline, decoder, rows)
            if not self._running:
                return
            moved = {id(answer) for answer in decoder.step()}
            for job in list(self._running):
                answer = job._answer
                assert answer is not None
                if id(answer) in moved and "first_token" not in job._seconds:
                    job._seconds["first_token"] = time.monotonic() - job._admitted
                if answer.done:
                    self._running.remove(job)
                    _finish(job, answer.error or _completion(job, answer))

    def _admit(self, pipeline: GenerationPipeline, decoder: Decoder, rows: int) -> None:
        """Drop requests that were given up or are late, and begin answers in free rows."""
        for job in list(self._running):
            if job.cancelled or _late(job):
                assert job._answer is not None
                decoder.leave(job._answer)
                self._running.remove(job)
                _finish(job, None if job.cancelled else _deadline())
        with self._changed:
            gone = [job for job in self._waiting if job.cancelled or _late(job)]
            for job in gone:
                self._waiting.remove(job)
        for job in gone:
            _finish(job, None if job.cancelled else _deadline())
        some_run = bool(self._running)
        while len(self._running) < rows:
            with self._changed:
                if not self._waiting:
                    return
                job = self._waiting.popleft()
            self._begin(pipeline, decoder, job)
            if some_run:
                return

    def _begin(self, pipeline: GenerationPipeline, decoder: Decoder, job: Job) -> None:
        job._admitted = start = time.monotonic()
        job._seconds = {"preprocess": job.preprocessed, "queue": start - job._submitted}
        try:
            requests = pipeline.requests([job.prompt])
            job._seconds["vision"] = time.monotonic() - start
            (prepared,) = pipeline.prepared([job.prompt], requests, job.settings)
            job._answer = decoder.join(prepared, partial(_tell, job))
        except BaseException as error:  # of this request alone; a panic of Rust's tokenizers is no Exception
            _finish(job, as_ditto(error))
            return
        self._running.append(job)


def _completion(job: Job, answer: AnswerState) -> Completion:
    assert answer.finish_reason is not None
    seconds = {**job._seconds, "total": time.monotonic() - job._submitted + job.preprocessed}
    return Completion(
        text=answer.text,
        token_ids=answer.token_ids,
        finish_reason=answer.finish_reason,
        prompt_tokens=len(answer.prompt.request.ids),
        seconds={name: round(value, 6) for name, value in seconds.items()},
        logprobs=None if job.settings.top_logprobs is None else tuple(answer.reported),
    )


def _tell(job: Job, piece: str) -> None:
    try:
        job.tell(piece)
    except BaseException:  # the listener's fault must not harm other requests
        logger.exception("the listener of an answer failed")
        job.cancel()


def _finish(job: Job, result: Completion | DittoError | None) -> None:
    try:
        job.end(result)
    except BaseException:  # the listener's fault must not harm other requests
        logger.exception("the listener of an answer failed")
    job.tell = job.end = _ignore  # listeners know their job: its images would wait for the garbage collector
    job._answer = None


def _ignore(event: object) -> None:
    del event


def _late(job: Job) -> bool:
    return job.deadline is not None and time.monotonic() > job.deadline


def _deadline() -> DeadlineError:
    return DeadlineError("the answer was not complete at its deadline", remedy="allow more time or fewer new tokens")
