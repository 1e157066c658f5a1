"""Stages are measured and told to whoever listens, and to nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ditto.progress import advance, listening, peak_resident_bytes, recording, stage


class Ear:
    def __init__(self):
        self.heard = []

    def started(self, name, detail):
        self.heard.append(("started", name, detail))

    def advanced(self, name, detail, fraction):
        self.heard.append(("advanced", name, detail, fraction))

    def finished(self, record):
        self.heard.append(("finished", record.name))


def test_listeners_hear_a_stage_from_start_to_end():
    ear = Ear()
    with listening(ear), stage("export", "vision"):
        advance(0.5)
    assert ear.heard == [("started", "export", "vision"), ("advanced", "export", "vision", 0.5), ("finished", "export")]


def test_progress_is_that_of_the_innermost_stage():
    ear = Ear()
    with listening(ear), stage("export", "vision"):
        with stage("trace"):
            advance(0.25)
        advance(0.5)
    told = [event[1:] for event in ear.heard if event[0] == "advanced"]
    assert told == [("trace", "", 0.25), ("export", "vision", 0.5)]


def test_a_listener_hears_nothing_afterwards():
    ear = Ear()
    with listening(ear):
        pass
    with stage("export"):
        pass
    assert ear.heard == []


def test_a_failed_stage_does_not_finish():
    with recording() as records:
        with pytest.raises(ZeroDivisionError), stage("export"):
            raise ZeroDivisionError
        with stage("lower"):
            pass
    assert [record.name for record in records] == ["lower"]


def test_seconds_and_peak_memory_are_of_this_process():
    with recording() as records, stage("work"):
        pass
    assert 0 <= records[0].seconds < 1
    assert 10**7 < records[0].peak_bytes <= peak_resident_bytes()


def test_the_process_that_started_this_one_does_not_count():
    large = bytearray(1 << 30)
    code = "from ditto.progress import peak_resident_bytes; print(peak_resident_bytes())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 10**7 < int(told) < len(large)


def test_memory_counts_that_was_used_once_and_not_what_was_only_reserved():
    code = (
        "import mmap; from ditto.progress import peak_resident_bytes\n"
        "reserved = mmap.mmap(-1, 1 << 31); used = bytes(1 << 28) + b'.'; del used\n"
        "print(peak_resident_bytes())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 1 << 28 < int(told) < 1 << 30
