"""glibc allocator settings for the duration of a compilation."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager

# From malloc.h: free memory at the top of the heap before it is returned to the system, size of blocks allocated with
# mmap, maximum number of such blocks, number of arenas.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_KEEPING = {_M_TRIM_THRESHOLD: (1 << 31) - 1, _M_MMAP_MAX: 0, _M_ARENA_MAX: 1}
# glibc's defaults. The thresholds have the values that glibc would reach by itself: once set, they no longer adapt.
_DEFAULT = {_M_TRIM_THRESHOLD: 64 << 20, _M_MMAP_THRESHOLD: 32 << 20, _M_MMAP_MAX: 65536, _M_ARENA_MAX: 0}

_lock = threading.Lock()
_users = 0


@contextmanager
def keeping_freed_memory() -> Generator[None]:
    """Let glibc keep freed memory for later allocations, in one arena.

    The system clears the pages of large new blocks one at a time, which takes as long as the rest of a compilation. On
    exit the defaults are restored and free memory is returned to the system.

    Has no effect without glibc, or where the environment sets its allocator: glibc cannot report its settings, so only
    its defaults can be restored.
    """
    if not _has_defaults(os.environ):
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _has_defaults(environment: Mapping[str, str]) -> bool:
    """Whether this is glibc with default allocator settings."""
    stated = any(name.startswith("MALLOC_") for name in environment)
    tuned = "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")
    return platform.libc_ver()[0] == "glibc" and not stated and not tuned


def _enter() -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set(_KEEPING)


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _set(_DEFAULT)
            ctypes.CDLL(None).malloc_trim(0)


def _set(values: Mapping[int, int]) -> None:
    for parameter, value in values.items():
        ctypes.CDLL(None).mallopt(parameter, value)
