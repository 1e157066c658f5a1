"""jemalloc in glibc's place, where the system has it, for commands that compile.

TensorRT-RTX's builder makes and drops many small objects, for which glibc takes longer the more there are: on two cores
LLaVA-1.5-7B with weights outside builds in 37 s with jemalloc, in 62 s without, in the same memory.
"""

from __future__ import annotations

import ctypes.util
import os
import sys

COMPILING = ("build", "compile")
# Freed memory goes back to the system at once, as `ditto.targets.compile` sees to with glibc.
_SETTINGS = "dirty_decay_ms:0,muzzy_decay_ms:0"


def jemalloc() -> str | None:
    """The library's name for the loader, None where the system has none or `DITTO_ALLOCATOR` is empty."""
    if sys.platform != "linux" or os.environ.get("DITTO_ALLOCATOR") == "":
        return None
    return ctypes.util.find_library("jemalloc")


def take_jemalloc() -> None:
    """Begin this process anew with jemalloc if it is there and the command compiles. An allocator can only be chosen
    when a process begins; one that somebody chose stays."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if "LD_PRELOAD" in os.environ or command not in COMPILING:
        return
    library = jemalloc()
    if library is not None:
        environment = {"MALLOC_CONF": _SETTINGS, **os.environ, "LD_PRELOAD": library}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
