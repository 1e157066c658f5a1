"""A new process generates a first token, and its failure is reported."""

from __future__ import annotations

import io
import subprocess
import threading

import pytest

from ditto.bench.cold import cold_seconds


def test_a_tree_in_a_new_process(saved_tree):
    assert 0.5 < cold_seconds("tree", str(saved_tree.root), "reference") < 240


def test_a_model_in_a_new_process(saved_llava, saved_tree):
    assert 0.5 < cold_seconds("model", str(saved_tree.root), str(saved_llava), "float32") < 240


def test_a_failure_is_on_progress(tmp_path):
    with pytest.raises(RuntimeError, match="ended with 1"):
        cold_seconds("tree", str(tmp_path), "reference")


def test_whoever_is_interrupted_waits_for_nothing(monkeypatch):
    class Interrupted(io.StringIO):
        def __next__(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, *given, **named: None)
    monkeypatch.setattr(subprocess.Popen, "stdout", Interrupted(), raising=False)
    monkeypatch.setattr(subprocess.Popen, "__exit__", lambda self, *given: None)
    with pytest.raises(KeyboardInterrupt):
        cold_seconds("tree", "anywhere", "reference")
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)  # a thread may take a moment to end
