"""Processes that compile get jemalloc where the system has it, and nobody chose otherwise."""

from __future__ import annotations

import ctypes.util

import pytest

from ditto.allocator import jemalloc, with_jemalloc

SETTINGS = "dirty_decay_ms:0,muzzy_decay_ms:0"


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.2")


@pytest.mark.usefixtures("installed")
def test_a_new_process_gets_jemalloc_and_keeps_the_rest():
    made = with_jemalloc({"PATH": "here"})
    assert made == {"PATH": "here", "LD_PRELOAD": "libjemalloc.so.2", "MALLOC_CONF": SETTINGS}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("chosen", [{"LD_PRELOAD": "other.so"}, {"DITTO_ALLOCATOR": ""}])
def test_a_persons_choice_stays(chosen):
    assert with_jemalloc(chosen) == chosen
    assert with_jemalloc({"MALLOC_CONF": "narenas:1"})["MALLOC_CONF"] == "narenas:1"


def test_without_the_library_nothing_changes(monkeypatch):
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    assert with_jemalloc({}) == {} and jemalloc({}) is None
