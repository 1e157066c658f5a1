"""Stages on a terminal: lines for finished stages, a bar for the running one."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from typing_extensions import Self

from ditto.progress import StageRecord


def terminal() -> Console:
    """Console on stderr, because stdout is for results."""
    return Console(stderr=True)


class LiveStages:
    """Stage observer that draws progress bars.

    The bar follows TensorRT's progress reports; stages that report no progress have a pulsing bar. Only the lines of
    finished stages remain on the terminal.

    Args:
        console: console to draw on, also used for log lines.
        line: function that returns the line for a finished stage.
    """

    def __init__(self, console: Console, line: Callable[[StageRecord], str]) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
        self._console, self._line = console, line
        # stdout is not redirected: results would appear here.
        self._progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._running: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self._progress.stop()

    def started(self, name: str, detail: str) -> None:
        """Draw a progress bar; drawing stops between stages, where results are printed."""
        self._running[name, detail] = self._progress.add_task(f"{name} {detail}".strip(), total=None)
        self._progress.start()

    def advanced(self, name: str, detail: str, fraction: float) -> None:
        """Advance the stage's progress bar."""
        if (name, detail) in self._running:
            self._progress.update(self._running[name, detail], total=1.0, completed=fraction)

    def finished(self, record: StageRecord) -> None:
        """Replace the progress bar with a line."""
        self._progress.remove_task(self._running.pop((record.name, record.detail)))
        if not self._running:
            self._progress.stop()
        self._console.print(self._line(record), markup=False, highlight=False)
