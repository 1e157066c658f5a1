"""What a person sees: stages and log lines on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from loguru import logger

from ditto.errors import DittoError
from ditto.progress import StageRecord, listening


def start_logging(verbose: int, quiet: bool) -> None:
    """Show Ditto's log on stderr: choices made for the user, with -v more, with -q warnings only."""
    level = "WARNING" if quiet else ("INFO", "DEBUG", "TRACE")[min(verbose, 2)]
    logger.remove()
    logger.add(sys.stderr, level=level, format="{message}", colorize=False)
    logger.enable("ditto")


class StageLines:
    """A line for each finished stage."""

    def started(self, name: str, detail: str) -> None:
        """A line comes at the end."""

    def advanced(self, fraction: float) -> None:
        """A line comes at the end."""

    def finished(self, record: StageRecord) -> None:
        peak = record.peak_bytes / 2**30
        label = f"{record.name} {record.detail}".strip()
        print(f"{label:<28} {record.seconds:7.1f} s   peak {peak:5.1f} GiB", file=sys.stderr)


@contextmanager
def stage_lines(quiet: bool) -> Generator[None]:
    """Show stages as they finish."""
    if quiet:
        yield
        return
    with listening(StageLines()):
        yield


def show_error(error: DittoError) -> None:
    """What went wrong, where, and what to do: on stderr, in up to three lines."""
    print(f"error: {error.cause}", file=sys.stderr)
    if error.where is not None and str(error.where):
        print(f"   at: {error.where}", file=sys.stderr)
    if error.remedy:
        print(f" hint: {error.remedy}", file=sys.stderr)
