"""A report as a bar chart: the time of each task per system, with the roofline."""

from __future__ import annotations

import io
from pathlib import Path

from ditto.bench.report import Cell, Report, title
from ditto.bindings import install_command
from ditto.errors import MissingLibraryError
from ditto.outputs import write_file

MARK = "ditto bench"
"""What tells figures and plots of ours from any other file."""
_WIDTH = 0.8


def require() -> None:
    """Check that plots can be drawn here.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingLibraryError(
            "plots need matplotlib, which is not installed", remedy=install_command("plot")
        ) from None


def plot(report: Report, path: Path) -> None:
    """Draw a report into a PNG file.

    Raises:
        MissingLibraryError: matplotlib is not installed.
        OutputError: the file cannot be written, or is not a plot of ours.
    """
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 + 0.7 * len(report.rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(report.startup)
    places = range(len(report.rows))
    thick = _WIDTH / max(len(names), 1)
    for index, name in enumerate(names):
        times = [row.cells.get(name, Cell()).ms or 0.0 for row in report.rows]
        offsets = [place + (index - (len(names) - 1) / 2) * thick for place in places]
        bars = axes.barh(offsets, times, thick, label=name)
        axes.bar_label(bars, [f"{time:.3g} ms" if time else "-" for time in times], padding=3, fontsize=7)
    for place, row in zip(places, report.rows, strict=True):
        label = "roofline" if place == 0 else ""  # once in the legend
        axes.vlines(row.roofline_ms, place - _WIDTH / 2, place + _WIDTH / 2, "black", linewidth=2, label=label)
    axes.set_yticks(list(places), [title(row.task) for row in report.rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds, median (logarithmic)")
    axes.set_title(f"{report.model}, {report.dtype}, session {report.session}, {report.device}", fontsize=10)
    axes.legend(fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, format="png", metadata={"Software": MARK})
    write_file(path, drawn.getvalue(), MARK)
