"""On a terminal: a bar while a stage runs, a line when it is done, results on stdout as ever."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from ditto.cli import console as module
from ditto.cli.console import showing, stage_line
from ditto.cli.live import LiveStages
from ditto.progress import StageRecord, advance, listening, stage


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), force_terminal=True, width=100, _environ={})


def test_the_running_stage_has_a_bar_and_the_finished_one_a_line(screen):
    with LiveStages(screen, stage_line) as live, listening(live):
        with stage("compile", "llm"):
            advance(0.5)
            live._progress.refresh()
            drawn = screen.file.getvalue()
            assert "compile llm" in drawn and "\u2501" in drawn
            assert "peak" not in drawn
        assert "compile llm" in screen.file.getvalue().rpartition("\u2501")[2]
        assert "peak" in screen.file.getvalue()
        assert not live._progress.live.is_started


def test_stages_that_run_side_by_side_have_a_bar_each(screen):
    with LiveStages(screen, stage_line) as live:
        live.started("compile", "decode")
        live.started("compile", "llm")
        live.advanced("compile", "decode", 0.25)
        live.advanced("compile", "llm", 0.75)
        assert [(task.description, task.completed) for task in live._progress.tasks] == [
            ("compile decode", 0.25),
            ("compile llm", 0.75),
        ]
        live.finished(StageRecord("compile", "decode", 1.0, 2**30))
        assert [task.description for task in live._progress.tasks] == ["compile llm"]
        assert live._progress.live.is_started
        live.finished(StageRecord("compile", "llm", 1.5, 2**30))
        assert not live._progress.live.is_started
    assert screen.file.getvalue().count("peak   1.1 GB") == 2


def test_results_stay_on_stdout(screen, capsys):
    with LiveStages(screen, stage_line) as live, listening(live), stage("export"):
        print("a result")
    assert capsys.readouterr().out == "a result\n"
    assert "a result" not in screen.file.getvalue()


def test_a_failing_stage_takes_its_bar_away(screen):
    with pytest.raises(ZeroDivisionError), LiveStages(screen, stage_line) as live, listening(live), stage("export"):
        raise ZeroDivisionError
    assert not live._progress.live.is_started
    assert "\x1b[?25h" in screen.file.getvalue(), "the cursor is shown again"


@pytest.mark.parametrize(("terminal", "rich", "bars"), [(True, True, True), (True, False, False), (False, True, False)])
def test_bars_need_a_terminal_and_rich(monkeypatch, screen, capsys, terminal, rich, bars):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(module, "is_installed", lambda name: rich)
    monkeypatch.setattr("ditto.cli.live.terminal", lambda: screen)
    with showing(0, quiet=False), stage("export"):
        pass
    assert ("export" in screen.file.getvalue()) == bars
    assert ("export" in capsys.readouterr().err) != bars


def test_quiet_shows_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with showing(0, quiet=True), stage("export"):
        pass
    assert capsys.readouterr().err == ""
