"""Commands that compile begin anew with jemalloc, once, and only where the system has it."""

from __future__ import annotations

import ctypes.util
import os
import sys

import pytest

from ditto.cli.allocator import take_jemalloc


@pytest.fixture
def begun(monkeypatch):
    """What processes were begun, with jemalloc on the system: command line and environment."""
    calls = []
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.2")
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    for name in ("LD_PRELOAD", "DITTO_ALLOCATOR", "MALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    return calls


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ditto", *words])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-X", "dev", "-m", "ditto", *words])
    take_jemalloc()


def test_a_build_begins_anew(monkeypatch, begun):
    call(monkeypatch, "-q", "build", "model")
    ((program, line, environment),) = begun
    assert program == sys.executable
    assert line == [sys.executable, "-X", "dev", "-m", "ditto", "-q", "build", "model"]
    assert environment["LD_PRELOAD"] == "libjemalloc.so.2"
    assert environment["MALLOC_CONF"] == "dirty_decay_ms:0,muzzy_decay_ms:0"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["plan", "model"], {}),
        (["-v", "plan", "build"], {}),
        (["build", "model"], {"LD_PRELOAD": "other.so"}),
        (["build", "model"], {"DITTO_ALLOCATOR": ""}),
    ],
)
def test_what_does_not_compile_or_has_an_allocator_goes_on(monkeypatch, begun, words, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    call(monkeypatch, *words)
    assert begun == []


def test_a_persons_settings_of_jemalloc_stay(monkeypatch, begun):
    monkeypatch.setenv("MALLOC_CONF", "narenas:1")
    call(monkeypatch, "compile", "tree")
    assert begun[0][2]["MALLOC_CONF"] == "narenas:1"


def test_without_the_library_nothing_happens(monkeypatch, begun):
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    call(monkeypatch, "build", "model")
    assert begun == []
