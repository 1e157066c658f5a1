"""glibc's settings change for the time of a compilation, once however many there are, and not where others set them."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from ditto.targets import allocator
from ditto.targets.allocator import keeping_freed_memory


class Libc:
    """Notes what is set."""

    def __init__(self):
        self.calls = []

    def mallopt(self, parameter, value):
        self.calls.append((parameter, value))

    def malloc_trim(self, keep):
        self.calls.append("trim")


@pytest.fixture
def libc(monkeypatch):
    libc = Libc()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    return libc


def test_defaults_are_restored_when_the_last_compilation_ends(libc):
    with pytest.raises(ValueError, match="inside"), keeping_freed_memory():
        with keeping_freed_memory():
            pass
        assert libc.calls == list(allocator._KEEPING.items())
        raise ValueError("inside")
    assert libc.calls == [*allocator._KEEPING.items(), *allocator._DEFAULT.items(), "trim"]
    assert allocator._KEEPING.keys() <= allocator._DEFAULT.keys()


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.pthread.rseq=0:glibc.malloc.mmap_max=1")]
)
def test_settings_of_the_environment_stay(libc, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with keeping_freed_memory():
        pass
    assert libc.calls == []


def test_other_libraries_are_left_alone(libc, monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    with keeping_freed_memory():
        pass
    assert libc.calls == []


# How many blocks come from the system one by one (malloc.h: mallinfo's `hblks`) before, inside and after.
COUNT = """
import ctypes
from ditto.targets.allocator import keeping_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
class Info(ctypes.Structure):
    _fields_ = [(f"field{number}", ctypes.c_int) for number in range(10)]
libc.mallinfo.restype = Info
def blocks():
    before = libc.mallinfo().field3
    libc.malloc(ctypes.c_size_t(40 << 20))
    return libc.mallinfo().field3 - before
found = [blocks()]
with keeping_freed_memory():
    found.append(blocks())
print(*found, blocks())
"""


def test_large_blocks_come_from_the_heap_inside_alone():
    made = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["1", "0", "1"]
