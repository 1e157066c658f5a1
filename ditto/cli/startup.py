"""Process setup for a fast start.

Does not import torch, whose import takes most of the start-up time.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
import threading
from pathlib import Path

from ditto.cache import cache_directory


def collect_seldom() -> None:
    """Make Python's garbage collection rare.

    Most objects, from imports on, live until the process ends. With Python's default threshold, collections
    take a tenth of torch's import and a fifth of a plan's time.
    """
    gc.set_threshold(100_000)


def keep_bytecode() -> None:
    """Store bytecode in Ditto's cache if it cannot be stored next to the modules.

    A container image built with `PYTHONDONTWRITEBYTECODE`, or an installation without bytecode in read-only
    directories, has none: each process compiles all of torch's Python code, which takes 2.5 seconds on a slow machine.
    Python checks the stored bytecode against the sources.
    """
    torch, directory = importlib.util.find_spec("torch"), cache_directory()
    if torch is None or torch.origin is None or directory is None or sys.pycache_prefix is not None:
        return
    cached = Path(importlib.util.cache_from_source(torch.origin))
    if cached.exists() or (os.access(cached.parent.parent, os.W_OK) and not sys.dont_write_bytecode):
        return
    sys.pycache_prefix, sys.dont_write_bytecode = str(directory / "bytecode"), False


def start_driver() -> threading.Thread:
    """Initialize CUDA and the first GPU's context in a thread during imports.

    Saves half a second of the start. Without a driver or GPU it does nothing; code that needs one reports the error.
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
        # The primary context, which the CUDA runtime, and so torch, uses.
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
