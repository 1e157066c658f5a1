"""The driver is started once, in a thread; without one nothing happens. Garbage is searched for seldom, and modules are
compiled once."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ditto.cli.startup import collect_seldom, keep_bytecode, start_driver


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
    code = "import sys, ditto.cli.startup; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_garbage_is_searched_for_seldom():
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.isenabled() and gc.get_threshold()[0] > 10 * before[0]
    finally:
        gc.set_threshold(*before)


# Imports a module as torch is imported.
IMPORT = """
from ditto.cli.startup import keep_bytecode
keep_bytecode()
import torch
"""


@pytest.mark.parametrize("writes", [True, False], ids=["beside", "in the cache"])
def test_modules_are_compiled_once_even_if_nothing_is_to_be_written_beside_them(tmp_path, writes):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("x = 1\n")
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    env = {**os.environ, "PYTHONPATH": paths, "DITTO_CACHE": str(tmp_path / "cache")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if not writes:
        env["PYTHONDONTWRITEBYTECODE"] = "1"
    subprocess.run([sys.executable, "-c", IMPORT], env=env, capture_output=True, text=True, check=True)
    kept = [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("__init__*.pyc") if "torch" in str(path)]
    assert kept == (["torch"] if writes else ["cache"])


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Python's settings, put back afterwards; torch in a directory, without bytecode."""
    (tmp_path / "torch").mkdir()
    origin = tmp_path / "torch" / "__init__.py"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(origin=str(origin)))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setenv("DITTO_CACHE", str(tmp_path / "cache"))
    return origin


def test_what_lies_beside_modules_is_used_and_nothing_else_written(settings):
    kept = settings.parent / "__pycache__" / f"__init__.{sys.implementation.cache_tag}.pyc"
    kept.parent.mkdir()
    kept.touch()
    keep_bytecode()
    assert sys.dont_write_bytecode and sys.pycache_prefix is None


def test_without_a_cache_nothing_is_kept(settings, monkeypatch):
    monkeypatch.setenv("DITTO_CACHE", "")
    keep_bytecode()
    assert sys.dont_write_bytecode and sys.pycache_prefix is None


def test_a_place_that_the_user_has_chosen_stays(settings, monkeypatch):
    monkeypatch.setattr(sys, "pycache_prefix", "/chosen")
    keep_bytecode()
    assert sys.dont_write_bytecode and sys.pycache_prefix == "/chosen"
