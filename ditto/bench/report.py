"""The results of a run, as a table and as JSON."""

from __future__ import annotations

from typing import Any

from attrs import asdict, define, field, frozen

from ditto.bench.peak_rates import PeakRates
from ditto.bench.plan import ANSWER, DECODE, VISION, Task


@frozen
class Cell:
    """The time of one system for one task, or the reason why there is none.

    Args:
        ms: median milliseconds: per step for decode, for the whole task otherwise.
        failure: the error, or why the task was skipped.
    """

    ms: float | None = None
    failure: str | None = None


@define
class Row:
    """A task, its roofline, and the cell of each system.

    Args:
        roofline_ms: the least time at the device's measured peak rates.
        bytes, flops: the memory traffic and operations of that roofline.
    """

    task: Task
    roofline_ms: float
    bytes: float
    flops: float
    cells: dict[str, Cell] = field(factory=dict)

    def tokens_per_s(self, name: str) -> float | None:
        """New tokens of all rows per second; None where the task makes none, or was not measured."""
        cell = self.cells.get(name, Cell())
        if cell.ms is None or self.task.kind not in (DECODE, ANSWER):
            return None
        tokens = self.task.batch * (1 if self.task.kind == DECODE else self.task.new_tokens)
        return tokens / cell.ms * 1e3

    def share(self, name: str) -> float | None:
        """The share of the roofline that was reached, 0 to 1."""
        ms = self.cells.get(name, Cell()).ms
        return None if ms is None else self.roofline_ms / ms


@define
class Startup:
    """Start-up of a system.

    Args:
        load_s: seconds from opening to a first token, in a process that has imported its libraries.
        cold_s: seconds from starting a new process to a first token.
        memory_bytes: GPU memory in use at the end of the run; on a CPU the peak of the process so far.
        failure: the error, if there was one.
    """

    load_s: float | None = None
    cold_s: float | None = None
    memory_bytes: int | None = None
    failure: str | None = None


@define
class Report:
    """The results of a run.

    Args:
        tree, model, session, device, dtype: what was measured, and where.
        versions: of the libraries involved.
        peak_rates: of the device.
        startup: by system.
        rows: in the order of measuring.
    """

    tree: str
    model: str
    session: str
    device: str
    dtype: str
    versions: dict[str, str]
    peak_rates: PeakRates
    startup: dict[str, Startup] = field(factory=dict)
    rows: list[Row] = field(factory=list)

    def to_json(self) -> dict[str, Any]:
        """The whole report, with rates and shares."""
        data = asdict(self)
        for row, made in zip(self.rows, data["rows"], strict=True):
            for name, cell in made["cells"].items():
                cell["tokens_per_s"], cell["share_of_roofline"] = row.tokens_per_s(name), row.share(name)
        return data

    @property
    def failures(self) -> list[str]:
        """One sentence for each measurement that failed."""
        found = [f"{name}, start: {start.failure}" for name, start in self.startup.items() if start.failure]
        for row in self.rows:
            label = title(row.task)
            found += [f"{name}, {label}: {cell.failure}" for name, cell in row.cells.items() if cell.failure]
        return found

    def text(self) -> str:
        """The report as a table for a terminal."""
        names = list(self.startup)
        gb, tera = self.peak_rates.bytes_per_s / 1e9, self.peak_rates.flops_per_s / 1e12
        parts = (f"{name} {version}" for name, version in self.versions.items())
        head = [
            f"{self.tree}   session {self.session}, {self.dtype}, {self.device}",
            ", ".join(parts),
            f"peak rates: {gb:.0f} GB/s, {tera:.2f} TFLOP/s",
            "",
        ]
        lines = [["", *names, "roofline", "of roofline", "tokens/s"]]
        for row in self.rows:
            first = names[0] if names else ""
            share, rate = row.share(first), row.tokens_per_s(first)
            lines.append(
                [
                    title(row.task),
                    *(_ms(row.cells.get(name, Cell()).ms) for name in names),
                    _ms(row.roofline_ms),
                    "-" if share is None else f"{share:.0%}",
                    "" if rate is None else f"{rate:.0f}",
                ]
            )
        for label, key, unit, scale in _STARTUP:
            values = [getattr(start, key) for start in self.startup.values()]
            shown = ["-" if value is None else f"{value / scale:.2f} {unit}" for value in values]
            lines.append([label, *shown, "", "", ""])
        failures = [f"not measured: {failure}" for failure in self.failures]
        return "\n".join([*head, *_aligned(lines), *failures])


_STARTUP = (
    ("load, to a first token", "load_s", "s", 1),
    ("new process to a first token", "cold_s", "s", 1),
    ("memory", "memory_bytes", "GB", 10**9),
)


def title(task: Task) -> str:
    """The name of a task in tables."""
    if task.kind == VISION:
        return f"vision, batch {task.batch}"
    if task.kind == ANSWER:
        return f"answer, batch {task.batch}, an image each, {task.new_tokens} tokens"
    if task.kind == DECODE:
        return f"decode after {task.context} tokens, batch {task.batch}, per step"
    return f"prefill of {task.context} tokens, batch {task.batch}"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f} ms" if value < 1 else f"{value:.2f} ms" if value < 100 else f"{value:.0f} ms"


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    made: list[str] = []
    for first, *rest in lines:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        made.append("   ".join([first.ljust(widths[0]), *cells]).rstrip())
    return made
