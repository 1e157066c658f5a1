"""The clock counts the work, once per call."""

from __future__ import annotations

import time

import torch

from ditto.bench.clock import milliseconds

CPU = torch.device("cpu")


def test_a_median_of_repeats():
    naps = iter([0.02, 0.2, 0.02])
    assert 20 <= milliseconds(lambda: time.sleep(next(naps)), CPU, repeats=3) < 150


def test_short_work_runs_in_bursts():
    calls: list[int] = []
    milliseconds(lambda: calls.append(0), CPU, repeats=2, burst=True)
    assert len(calls) == 1 + 2 * 50


def test_long_work_is_not_repeated(monkeypatch):
    monkeypatch.setattr("ditto.bench.clock._ENOUGH_SECONDS", 0.05)
    calls: list[int] = []

    def work():
        calls.append(0)
        time.sleep(0.03)

    milliseconds(work, CPU, repeats=10)
    assert len(calls) == 2
