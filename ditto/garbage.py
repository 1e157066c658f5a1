"""Garbage collection, paused where it would be in vain or do harm."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Generator[None]:
    """Let Python collect no garbage inside; whether it collects afterwards is as before.

    What tracing makes lives on: looking through it is in vain. TensorRT calls back into Python while it holds a lock of
    its own; were an old builder collected there (a traceback may have kept it), freeing it would wait for that lock for
    ever (seen with TensorRT-RTX 1.6.1).
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
