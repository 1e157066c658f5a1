"""What is measured of forms is told, kept and summed."""

from __future__ import annotations

import math
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve

from benchmarks.forms import TOKENS, Held, attention, product
from benchmarks.gpu_forms import Found, survey, tables
from benchmarks.gpu_limits import compiled
from ditto.bindings import load_native
from ditto.network import Spec

CPU = torch.device("cpu")


class Compiling:
    """Compiles what cannot be run here: a form's time is how many are before it, its error what is said."""

    def __init__(self, directory, errors=()):
        self.directory, self.errors, self.seen = directory, dict(errors), []

    def form(self, case, form, batch):
        source = Held(case.draw(batch, CPU))
        compiled(form.network, source, case.profile(batch), load_native("tensorrt_rtx"), self.directory / "form.engine")
        self.seen.append((batch, case.name))
        return float(len(self.seen)), self.errors.get(len(self.seen), 1e-4)

    def torch(self, case, batch):
        return 0.5


@pytest.fixture
def asked():
    """A product of three forms and attention."""
    case = product("prefill", "output", 31, "turned", 16, 8, rows=4)
    case = evolve(case, forms={name: case.forms[name] for name in ("as it is", "turned", "rows")})
    return [case, attention("prefill", 32, "heads", 2, 8, rows=4, causal=True)]


def test_dittos_forms_are_measured_first_and_told_at_once(asked, tmp_path, capsys):
    measure = Compiling(tmp_path)
    found = []
    for each in survey(asked, [1, 2], measure, math.inf):
        found.append(each)
        assert len(capsys.readouterr().out.splitlines()) == 1
    assert [each.is_used for each in found] == [True] * 4 + [False] * 8
    assert measure.seen[:4] == [(1, "output"), (1, "attention"), (2, "output"), (2, "attention")]
    first = found[0]
    assert (first.form, first.ms, first.torch_ms, first.times) == ("turned", 1.0, 0.5, 31)
    assert first.tflops == pytest.approx(2 * 4 * 16 * 8 / 1e-3 / 1e12)
    assert found[2].tflops == pytest.approx(2 * 2 * 4 * 16 * 8 / 3e-3 / 1e12)


def test_a_refused_form_is_told_and_left_out(asked, tmp_path, capsys):
    asked[0].forms["turned"].network.inputs["x"] = Spec((1, TOKENS, 9), torch.float16)  # the matrix has 8
    found = list(survey(asked, [1], Compiling(tmp_path), math.inf))
    assert [(each.product, each.form) for each in found] == [
        ("attention", "heads"),
        ("output", "as it is"),
        ("attention", "joint"),
        ("output", "rows"),
        ("attention", "written out"),
    ]
    assert "prefill 1: output, turned: refused, TensorRT cannot infer the shape" in capsys.readouterr().out
    row = next(line for line in tables(asked, found) if line.startswith("| output"))
    assert row.startswith("| output | 31 | as it is | 2000.0 |") and row.endswith("| turned | - | 500.0 |")
    assert tables(asked, found)[-1] == "| sum | | | 94.00 ms | | | - | 31.50 ms |"


def test_a_form_that_computes_something_else_is_told_and_left_out(asked, tmp_path, capsys):
    found = list(survey(asked, [1], Compiling(tmp_path, {3: 0.2, 5: math.nan}), math.inf))
    assert [each.form for each in found if each.product == "output"] == ["turned"]
    out = capsys.readouterr().out
    assert "output, as it is: " in out and "WRONG, relative error 2.0e-01" in out and "relative error nan" in out


def test_nothing_is_begun_when_the_time_is_up(asked, tmp_path, capsys, monkeypatch):
    ticks = count()
    monkeypatch.setattr("benchmarks.gpu_forms.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert [each.form for each in survey(asked, [1], Compiling(tmp_path), 1)] == ["turned", "heads"]
    assert capsys.readouterr().out.endswith("\nthe time is up: 4 forms are left\n")


def test_tables_choose_the_fastest_and_sum_as_often_as_said(asked):
    def found(product, times, form, ms, is_used=False, batch=1):
        return Found("prefill", batch, product, times, form, is_used, ms, 0.25, 100.0, 1e-4)

    measured = [
        found("output", 31, "turned", 2.0, is_used=True),
        found("output", 31, "rows", 1.0),
        found("output", 31, "as it is", 3.0),
        found("attention", 32, "heads", 0.5, is_used=True),
        found("output", 31, "rows", 7.0, batch=4),
    ]
    lines = [line for line in tables(asked, measured) if line]
    assert lines[0] == "prefill, batch 1"
    assert lines[3:6] == [
        "| output | 31 | rows | 1000.0 | 100 | turned | 2000.0 | 250.0 |",
        "| attention | 32 | heads | 500.0 | 100 | heads | 500.0 | 250.0 |",
        "| sum | | | 47.00 ms | | | 78.00 ms | 15.75 ms |",
    ]
    assert lines[6] == "prefill, batch 4"
    assert lines[10:] == ["| attention | 32 | - | - | - | heads | - | - |", "| sum | | | - | | | - | - |"]
