"""Repeated work is done as it is, then recorded, then replayed; where that fails, done as it is."""

from __future__ import annotations

import pytest
from loguru import logger

from ditto.errors import DeviceError
from ditto.runtime.graphs import GraphedCallable


class Recorder:
    """Stands in for CUDA's recording, which needs a GPU."""

    def __init__(self, log, error=None):
        self.log, self.error = log, error

    def __call__(self, work):
        self.log.append("recorded")
        if self.error is not None:
            raise self.error
        return lambda: self.log.append("replayed")


@pytest.mark.parametrize("plain_times", [0, 1, 2])
def test_recorded_once_after_the_plain_times(plain_times):
    log = []
    repeated = GraphedCallable(lambda: log.append("done"), Recorder(log), plain_times)
    for _ in range(plain_times):
        repeated()
    assert not repeated.is_recorded
    for _ in range(3):
        repeated()
    assert log == ["done"] * plain_times + ["recorded"] + ["replayed"] * 3
    assert repeated.is_recorded


@pytest.mark.parametrize("error", [RuntimeError("capture failed\nat once"), DeviceError("refused")])
def test_what_cannot_be_recorded_is_done_as_it_is_each_time(error):
    log, said = [], []
    logger.enable("ditto")
    sink = logger.add(lambda line: said.append(line.record["message"]), level="INFO")
    try:
        repeated = GraphedCallable(lambda: log.append("done"), Recorder(log, error))
        for _ in range(4):
            repeated()
    finally:
        logger.remove(sink)
        logger.disable("ditto")
    assert log == ["done", "recorded", "done", "done", "done"]
    assert not repeated.is_recorded
    assert said == [f"without a CUDA graph: {str(error).splitlines()[0]}"]
