"""The GPU's driver, started while Python still imports what will use it. Knows no torch, whose import is that work."""

from __future__ import annotations

import ctypes
import threading


def start_driver() -> threading.Thread:
    """Start CUDA's driver and the first GPU's context in a thread of its own: half a second that would come later.

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
