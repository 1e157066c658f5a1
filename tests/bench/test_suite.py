"""A whole run on the CPU: every task has its time, failures stay in their cell. How long things took is not tested."""

from __future__ import annotations

import pytest

from ditto.bench.baselines import EagerBaseline
from ditto.bench.peak_rates import PeakRates
from ditto.bench.plan import DECODE, VISION, Plan
from ditto.bench.suite import bench
from ditto.bench.system import TreeSystem
from ditto.errors import TreeError

PLAN = Plan(batches=(1, 2), contexts=(9,), new_tokens=3, repeats=1)


@pytest.fixture
def no_new_process(monkeypatch):
    monkeypatch.setattr("ditto.bench.suite.cold_seconds", lambda *arguments: 1.0)


@pytest.fixture(autouse=True)
def known_rates(monkeypatch):
    """Peak rates have tests of their own, and take a second to measure."""
    monkeypatch.setattr("ditto.bench.suite.measure", lambda *arguments: PeakRates(1e10, 1e12))


def test_every_task_has_a_time(saved_tree, no_new_process):
    seen: list[int] = []
    report = bench(saved_tree, PLAN, "reference", "manifest", lambda report: seen.append(len(report.rows)))
    assert report.failures == []
    assert list(report.startup) == ["ditto", "hugging face"]
    for start in report.startup.values():
        assert start.load_s > 0
        assert start.cold_s == 1.0
        assert start.memory_bytes > 10**6
    assert len(report.rows) == 7
    assert len(seen) == 2 * (7 + 1)
    for row in report.rows:
        assert row.roofline_ms > 0
        for cell in row.cells.values():
            assert cell.ms > 0 or row.task.kind == DECODE
    assert report.session == "reference"
    assert "vision, batch 2" in report.text()


def test_as_long_a_prompt_as_there_is_room_for_is_measured(saved_tree, no_new_process):
    config = saved_tree.config("llm")["build_config"]
    longest = min(config["max_input_len"], config["max_seq_len"] - 2)
    report = bench(saved_tree, Plan((1,), (longest,), new_tokens=1, repeats=1), "reference")
    assert report.failures == []


def test_a_failure_stays_in_its_cell(saved_tree, no_new_process, monkeypatch):
    def broken(self, pixels):
        raise ValueError("it fell\nand more")

    monkeypatch.setattr(EagerBaseline, "features", broken)
    monkeypatch.setattr("ditto.bench.suite.first_token", lambda system, tree: 0)
    report = bench(saved_tree, PLAN, "reference", "manifest")
    cells = [row.cells["hugging face"] for row in report.rows if row.task.kind == VISION]
    assert [cell.failure for cell in cells] == ["ValueError: it fell"] * 2
    assert len(report.failures) == 2


def test_baselines_stop_when_time_is_up(saved_tree, no_new_process):
    report = bench(saved_tree, Plan((1,), (9,), 3, 1, seconds=0.0), "reference", "manifest")
    assert all(row.cells["ditto"].failure is None for row in report.rows)
    assert {row.cells["hugging face"].failure for row in report.rows} == {"no time left"}
    assert report.startup["hugging face"].failure == "no time left"


def test_a_missing_baseline_is_reported_and_the_tree_is_measured(saved_tree, no_new_process, tmp_path):
    report = bench(saved_tree, PLAN, "reference", str(tmp_path / "nowhere"))
    assert report.failures == ["hugging face, start: there is no such checkpoint directory"]


def test_a_tree_from_memory_needs_a_checkpoint_for_the_baseline(llava_tree):
    with pytest.raises(TreeError, match="knows no checkpoint"):
        bench(llava_tree, PLAN, "reference", "manifest")


def test_an_answer_that_ends_early_is_no_measurement(saved_tree, no_new_process, monkeypatch):
    monkeypatch.setattr(TreeSystem, "answer", lambda self, prompts, count: [(1,)] * len(prompts.ids))
    report = bench(saved_tree, PLAN, "reference")
    assert any("an answer ended early" in failure for failure in report.failures)
