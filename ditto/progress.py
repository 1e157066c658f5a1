"""Stages of long work, told to whoever listens. Knows no terminal: `cli` draws, this room measures."""

from __future__ import annotations

import resource
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from attrs import define, frozen
from loguru import logger


@frozen
class StageRecord:
    """A finished stage. `seconds`: wall time; `peak_bytes`: the process's peak resident memory up to its end."""

    name: str
    detail: str
    seconds: float
    peak_bytes: int


class Listener(Protocol):
    """Whoever wants to know of stages as they happen. Stages lie in one another."""

    def started(self, name: str, detail: str) -> None: ...

    def advanced(self, name: str, detail: str, fraction: float) -> None: ...

    def finished(self, record: StageRecord) -> None: ...


@define
class Recorder:
    """A listener that keeps the finished stages."""

    records: list[StageRecord]

    def started(self, name: str, detail: str) -> None:
        """Nothing to keep yet."""

    def advanced(self, name: str, detail: str, fraction: float) -> None:
        """Nothing to keep yet."""

    def finished(self, record: StageRecord) -> None:
        self.records.append(record)


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("ditto_listeners", default=())
_running: ContextVar[tuple[str, str]] = ContextVar("ditto_stage", default=("", ""))


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Tell `listener` of every stage that runs inside."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def recording() -> Generator[list[StageRecord]]:
    """Collect the stages that finish inside."""
    recorder = Recorder([])
    with listening(recorder):
        yield recorder.records


def peak_resident_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    try:  # getrusage, on Linux, also counts the process that this one was started from
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def stage(name: str, detail: str = "") -> Generator[None]:
    """Mark long work: listeners learn of its start and, if it succeeds, of its seconds and peak memory."""
    for listener in _listeners.get():
        listener.started(name, detail)
    token = _running.set((name, detail))
    start = time.perf_counter()
    try:
        yield
    finally:
        _running.reset(token)
    record = StageRecord(name, detail, time.perf_counter() - start, peak_resident_bytes())
    logger.debug("{} {}: {:.2f} s", name, detail, record.seconds)
    for listener in _listeners.get():
        listener.finished(record)


def advance(fraction: float) -> None:
    """Tell listeners how much of the running stage is done, from 0 to 1."""
    for listener in _listeners.get():
        listener.advanced(*_running.get(), fraction)
