"""Work beside other work begins after what was there before, and is waited for when the next of its kind has begun."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from ditto.runtime.side_stream import SideStream


class Streams:
    """Stands in for CUDA: what each stream was told, in order."""

    def __init__(self):
        self.told = []
        self.main = self.current = _Stream(self, "main")

    @contextmanager
    def within(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def work(self, name):
        """A call that puts work of this name into the current stream."""
        return lambda: self.told.append(f"{self.current.name}: {name}")


class _Stream:
    device = torch.device("cpu")

    def __init__(self, streams, name):
        self.streams, self.name = streams, name

    def wait_stream(self, other):
        self.streams.told.append(f"{self.name}: waits for what is in {other.name}")

    def wait_event(self, event):
        self.streams.told.append(f"{self.name}: waits for {event.after}")


@pytest.fixture
def streams(monkeypatch):
    made = Streams()

    class Event:
        def record(self, stream):
            self.after = next(line for line in reversed(made.told) if line.startswith(stream.name))

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: _Stream(made, "aside"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: made.current)
    monkeypatch.setattr(torch.cuda, "stream", made.within)
    return made


def test_the_next_of_its_kind_begins_before_anybody_waits(streams):
    aside = SideStream(torch.device("cpu"))
    for number in (1, 2):
        streams.work(f"block {number}")()
        aside.run(streams.work(f"caches {number}"))
    aside.join()
    assert streams.told == [
        "main: block 1",
        "aside: waits for what is in main",
        "aside: caches 1",
        "main: block 2",
        "aside: waits for what is in main",
        "aside: caches 2",
        "main: waits for aside: caches 1",
        "main: waits for aside: caches 2",
    ]


def test_work_is_waited_for_once(streams):
    aside = SideStream(torch.device("cpu"))
    aside.join()
    aside.run(streams.work("caches"))
    aside.join()
    aside.join()
    assert streams.told.count("main: waits for aside: caches") == 1 and len(streams.told) == 3
