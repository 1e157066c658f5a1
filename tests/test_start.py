"""The driver is started once, in a thread; without one nothing happens. Garbage is searched for seldom."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys

import pytest

from ditto.start import collect_seldom, start_driver


class Driver:
    """Stands in for libcuda: notes the calls, of which one may fail."""

    def __init__(self, failing=""):
        self.failing, self.calls = failing, []

    def __getattr__(self, name):
        def call(*_):
            self.calls.append(name)
            return int(name == self.failing)

        return call


@pytest.mark.parametrize(
    ("failing", "calls"),
    [
        ("", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"]),
        ("cuInit", ["cuInit"]),
        ("cuDeviceGet", ["cuInit", "cuDeviceGet"]),
    ],
)
def test_the_first_gpu_gets_its_context(monkeypatch, failing, calls):
    driver = Driver(failing)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    start_driver().join()
    assert driver.calls == calls


def test_without_a_driver_nothing_happens(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    start_driver().join()


def test_it_needs_no_torch():
    code = "import sys, ditto.start; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_garbage_is_searched_for_seldom():
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.isenabled() and gc.get_threshold()[0] > 10 * before[0]
    finally:
        gc.set_threshold(*before)
