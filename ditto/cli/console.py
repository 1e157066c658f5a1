"""Terminal output: stages and log lines on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from loguru import logger

from ditto.bindings import is_installed
from ditto.errors import DittoError
from ditto.progress import StageRecord, listening
from ditto.units import size_text


def start_logging(verbose: int, quiet: bool, write: Callable[[str], object] | None = None) -> None:
    """Write Ditto's log to stderr, or to `write`.

    By default it holds choices made for the user; -v adds more, -q leaves only warnings.
    """
    level = "WARNING" if quiet else ("INFO", "DEBUG", "TRACE")[min(verbose, 2)]
    logger.remove()
    sink: Any = write or sys.stderr
    logger.add(sink, level=level, format="{message}", colorize=False)
    logger.enable("ditto")


def stage_line(record: StageRecord) -> str:
    """Line for a finished stage: its name, time, and peak memory up to its end."""
    label = f"{record.name} {record.detail}".strip()
    return f"{label:<28} {record.seconds:7.1f} s   peak {size_text(record.peak_bytes):>8}"


class StageLines:
    """Stage observer that prints a line for each finished stage."""

    def started(self, name: str, detail: str) -> None:
        """Do nothing: the line is printed at the end."""

    def advanced(self, name: str, detail: str, fraction: float) -> None:
        """Do nothing: the line is printed at the end."""

    def finished(self, record: StageRecord) -> None:
        print(stage_line(record), file=sys.stderr)


@contextmanager
def showing(verbose: int, quiet: bool) -> Generator[None]:
    """Context that shows log and stages.

    If stderr is a terminal and rich is installed, the running stage has a progress bar; otherwise each finished stage
    has a line.
    """
    start_logging(verbose, quiet)
    if quiet:
        yield
        return
    if sys.stderr.isatty() and is_installed("rich"):
        from ditto.cli.live import LiveStages, terminal

        console = terminal()
        start_logging(verbose, quiet, lambda line: console.print(line, end="", markup=False, highlight=False))
        with LiveStages(console, stage_line) as live, listening(live):
            yield
        return
    with listening(StageLines()):
        yield


def show_json(data: Any, indent: int | None = 1) -> None:
    """Print one JSON object; characters that stdout's encoding lacks are escaped."""
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data, indent=indent)
    print(text, flush=True)


def show_error(error: DittoError) -> None:
    """Print cause, place and remedy of an error to stderr, in up to three lines."""
    print(f"error: {error.cause}", file=sys.stderr)
    if error.where is not None and str(error.where):
        print(f"   at: {error.where}", file=sys.stderr)
    if error.remedy:
        print(f" hint: {error.remedy}", file=sys.stderr)
