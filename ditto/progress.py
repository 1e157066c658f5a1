"""Stages of long work: measured here, reported to listeners, displayed by `cli`."""

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
    """A finished stage.

    Args:
        seconds: wall time.
        peak_bytes: peak resident memory of the process up to the end of the stage.
    """

    name: str
    detail: str
    seconds: float
    peak_bytes: int


class Listener(Protocol):
    """Receiver of stage events; stages can be nested."""

    def started(self, name: str, detail: str) -> None: ...

    def advanced(self, name: str, detail: str, fraction: float) -> None: ...

    def finished(self, record: StageRecord) -> None: ...


@define
class Recorder:
    """A listener that records finished stages."""

    records: list[StageRecord]

    def started(self, name: str, detail: str) -> None:
        """Ignored: only finished stages are recorded."""

    def advanced(self, name: str, detail: str, fraction: float) -> None:
        """Ignored: only finished stages are recorded."""

    def finished(self, record: StageRecord) -> None:
        self.records.append(record)


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("ditto_listeners", default=())
_running: ContextVar[tuple[str, str]] = ContextVar("ditto_stage", default=("", ""))


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Context that reports every stage to `listener`."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def recording() -> Generator[list[StageRecord]]:
    """Context that records the stages that finish in it."""
    recorder = Recorder([])
    with listening(recorder):
        yield recorder.records


def peak_resident_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    try:  # on Linux, getrusage also counts the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def stage(name: str, detail: str = "") -> Generator[None]:
    """Context of a stage; reports its start and, on success, its time and peak memory."""
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
    """Report the progress of the running stage, from 0 to 1."""
    for listener in _listeners.get():
        listener.advanced(*_running.get(), fraction)
