"""Processes that compile get oneTBB's allocator where it is installed, and nobody chose otherwise."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from ditto import allocator as room
from ditto.allocator import allocator, with_allocator


def test_a_new_process_has_it_and_keeps_the_rest():
    made = with_allocator({"PATH": "here"})
    assert made["PATH"] == "here" and made["TBB_MALLOC_SET_HUGE_SIZE_THRESHOLD"] == "4194304"
    program = "print(open('/proc/self/maps').read())"
    told = subprocess.run([sys.executable, "-c", program], env=made, capture_output=True, text=True, check=True)
    assert "libtbbmalloc_proxy.so" in told.stdout and "libtbbmalloc.so" in told.stdout
    assert told.stderr == ""


@pytest.mark.parametrize("chosen", [{"LD_PRELOAD": "other.so"}, {"DITTO_ALLOCATOR": ""}])
def test_a_persons_choice_stays(chosen):
    assert with_allocator(chosen) == chosen


def test_a_persons_settings_stay():
    mine = {"TBB_MALLOC_SET_HUGE_SIZE_THRESHOLD": "1"}
    assert with_allocator(mine) == {**mine, "LD_PRELOAD": allocator({})}


def test_without_the_package_nothing_changes(monkeypatch):
    def files(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(room, "files", files)
    assert with_allocator({}) == {}


@pytest.mark.parametrize("folder", ["/a folder", "/a:b", None])
def test_paths_that_the_loader_would_take_apart_are_left(monkeypatch, folder):
    class File:
        def __init__(self, name):
            self.name = name

        def locate(self):
            return f"{folder}/{self.name}"

    names = ("libtbbmalloc.so.2", "libtbbmalloc_proxy.so.2") if folder else ("libtbb.so.12",)
    monkeypatch.setattr(room, "files", lambda name: [File(name) for name in names])
    assert allocator({}) is None and with_allocator({}) == {}
