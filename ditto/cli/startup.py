"""What a process does first, so that it gets to its work sooner. Knows no torch, whose import takes the most time."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
import threading
from pathlib import Path

from ditto.cache import cache_folder


def collect_seldom() -> None:
    """Let Python search for garbage seldom: most of what a process makes, from its imports on, stays until it ends.
    With Python's own threshold the searches take a tenth of torch's import and a fifth of a plan's time."""
    gc.set_threshold(100_000)


def keep_bytecode() -> None:
    """Let Python keep what it compiles of imported modules in Ditto's cache, where it cannot keep it beside them.

    An image that is built with `PYTHONDONTWRITEBYTECODE`, or by an installer that compiles nothing into folders that
    cannot be written to, has none of it: each process compiles all of torch's Python, 2.5 seconds of a start on a slow
    machine. Python checks what is kept against the sources.
    """
    torch, folder = importlib.util.find_spec("torch"), cache_folder()
    if torch is None or torch.origin is None or folder is None or sys.pycache_prefix is not None:
        return
    beside = Path(importlib.util.cache_from_source(torch.origin))
    if beside.exists() or (os.access(beside.parent.parent, os.W_OK) and not sys.dont_write_bytecode):
        return
    sys.pycache_prefix, sys.dont_write_bytecode = str(folder / "bytecode"), False


def start_driver() -> threading.Thread:
    """Start CUDA's driver and the first GPU's context in a thread of its own, while Python still imports what will use
    them: half a second that would come later.

    Where there is no driver or no GPU nothing happens; whoever needs one finds out and says so.
    """
    thread = threading.Thread(target=_start, name="ditto-driver", daemon=True)
    thread.start()
    return thread


def _start() -> None:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if not cuda.cuInit(0) and not cuda.cuDeviceGet(ctypes.byref(device), 0):
        # The context that CUDA's runtime, and so torch, takes for its own.
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
