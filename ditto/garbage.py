"""Pausing Python's garbage collection where it is useless or harmful."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Generator[None]:
    """Context with garbage collection disabled; restores its previous state afterwards.

    Objects created by tracing stay alive, so collection only costs time. TensorRT calls back into Python while it holds
    a lock; if an old builder (kept by a traceback, say) were collected there, freeing it would deadlock on that lock
    (observed with TensorRT-RTX 1.6.1).
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
