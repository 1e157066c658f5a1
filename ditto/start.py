"""What a process does first, so that it gets to its work sooner. Knows no torch, whose import takes the most time."""

from __future__ import annotations

import ctypes
import gc
import threading


def collect_seldom() -> None:
    """Let Python search for garbage seldom: most of what a process makes, from its imports on, stays until it ends.
    With Python's own threshold the searches take a tenth of torch's import and a fifth of a plan's time."""
    gc.set_threshold(100_000)


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
