"""A report as a PNG, or the pip line that brings what draws it."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from ditto.bench.peak_rates import PeakRates
from ditto.bench.plan import DECODE, Task
from ditto.bench.plot import plot, require
from ditto.bench.report import Cell, Report, Row, Startup
from ditto.errors import MissingLibraryError


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingLibraryError, match="plots need matplotlib") as caught:
        require()
    assert "ditto-trt[plot]" in str(caught.value)


def test_a_plot_is_a_png(tmp_path):
    report = Report("out", "a model", "reference", "cpu", "float16", {}, PeakRates(1e9, 1e9))
    report.startup = {"ditto": Startup(), "baseline": Startup()}
    cells = {"ditto": Cell(ms=4.0), "baseline": Cell(failure="no time left")}
    report.rows = [Row(Task(DECODE, 1, 600, 128), 3.0, 1.0, 1.0, cells)]
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(MissingLibraryError):
            plot(report, tmp_path / "plot.png")
        assert not (tmp_path / "plot.png").exists()
    else:
        plot(report, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
