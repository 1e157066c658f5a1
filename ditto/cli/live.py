"""Stages on a terminal: a line for each that is done, and a bar for each that runs."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from typing_extensions import Self

from ditto.progress import StageRecord


def terminal() -> Console:
    """stderr: stdout is for results."""
    return Console(stderr=True)


class LiveStages:
    """Draws stages while they run. The bar follows what TensorRT says of its progress; stages that say nothing have one
    that moves to and fro. Nothing of it stays but the lines.

    Args:
        console: to draw on; log lines go through the same.
        line: what is said of a stage that is done.
    """

    def __init__(self, console: Console, line: Callable[[StageRecord], str]) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
        self._console, self._line = console, line
        # stdout is left alone: redirecting it would send results here.
        self._progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._running: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self._progress.stop()

    def started(self, name: str, detail: str) -> None:
        """Draw a bar; drawing goes on while stages run, and not between them, where results are printed."""
        self._running[name, detail] = self._progress.add_task(f"{name} {detail}".strip(), total=None)
        self._progress.start()

    def advanced(self, name: str, detail: str, fraction: float) -> None:
        """Fill the stage's bar."""
        if (name, detail) in self._running:
            self._progress.update(self._running[name, detail], total=1.0, completed=fraction)

    def finished(self, record: StageRecord) -> None:
        """Put a line in the bar's place."""
        self._progress.remove_task(self._running.pop((record.name, record.detail)))
        if not self._running:
            self._progress.stop()
        self._console.print(self._line(record), markup=False, highlight=False)
