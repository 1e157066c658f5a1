"""A report is a table and JSON; what follows from the times is right, and what is missing is said."""

from __future__ import annotations

import json

import pytest

from ditto.bench.peak_rates import PeakRates
from ditto.bench.plan import ANSWER, DECODE, PREFILL, VISION, Task
from ditto.bench.report import Cell, Report, Row, Startup, title


@pytest.fixture
def report():
    made = Report("out", "a model", "tensorrt", "a GPU", "float16", {"torch": "2"}, PeakRates(4e12, 7e14))
    made.startup = {"ditto": Startup(1.5, 4.25, 14 * 10**9), "baseline": Startup(failure="it fell")}
    cells = {"ditto": Cell(ms=4.0), "baseline": Cell(failure="no time left")}
    made.rows = [
        Row(Task(DECODE, 4, 600, 128), 3.0, 1.2e10, 1e9, dict(cells)),
        Row(Task(ANSWER, 2, 600, 128), 2.0, 1.2e10, 1e9, dict(cells)),
        Row(Task(VISION, 1), 1.0, 1e9, 1e9, {}),
    ]
    return made


def test_rates_and_shares(report):
    decode, answer, vision = report.rows
    assert decode.tokens_per_s("ditto") == pytest.approx(4 / 0.004)
    assert answer.tokens_per_s("ditto") == pytest.approx(2 * 128 / 0.004)
    assert decode.share("ditto") == pytest.approx(0.75)
    assert vision.share("ditto") is None
    assert decode.tokens_per_s("baseline") is None


def test_the_table(report):
    lines = report.text().splitlines()
    assert lines[2] == "peak rates: 4000 GB/s, 700.00 TFLOP/s"
    row = next(line for line in lines if line.startswith("decode after 600 tokens, batch 4, per step"))
    assert row.split()[-7:] == ["4.00", "ms", "-", "3.00", "ms", "75%", "1000"]
    assert any(line.startswith("memory") and "14.00 GB" in line for line in lines)
    assert "not measured: baseline, start: it fell" in lines
    assert "not measured: baseline, vision, batch 1" not in report.text()


def test_the_json_has_it_all(report):
    data = json.loads(json.dumps(report.to_json()))
    assert data["rows"][0]["cells"]["ditto"]["tokens_per_s"] == pytest.approx(1000)
    assert data["rows"][0]["cells"]["baseline"]["failure"] == "no time left"
    assert data["rows"][0]["task"] == {"kind": "decode", "batch": 4, "context": 600, "new_tokens": 128}
    assert data["peak_rates"]["bytes_per_s"] == 4e12


def test_titles():
    assert title(Task(PREFILL, 4, 600, 1)) == "prefill of 600 tokens, batch 4"
    assert title(Task(VISION, 4)) == "vision, batch 4"
    assert title(Task(ANSWER, 2, 600, 128)) == "answer, batch 2, an image each, 128 tokens"
