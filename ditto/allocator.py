"""oneTBB's allocator in glibc's place, where it is installed, for processes that compile.

TensorRT-RTX's builder makes and drops many small objects, for which glibc takes longer the more there are: 16 layers of
LLaVA-1.5-7B's decode engine with weights outside compile in 10 s with oneTBB's or with jemalloc, in 16 to 19 s without.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files

_PACKAGE = "tbb"
_LIBRARIES = ("libtbbmalloc.so.2", "libtbbmalloc_proxy.so.2")
# Larger blocks go back to the system when they are freed, as `ditto.targets.compile` sees to with glibc.
_SETTINGS = {"TBB_MALLOC_SET_HUGE_SIZE_THRESHOLD": str(4 << 20)}


def allocator(environment: Mapping[str, str]) -> str | None:
    """The libraries for the loader, None where they are not installed or `DITTO_ALLOCATOR` is empty."""
    if environment.get("DITTO_ALLOCATOR") == "":
        return None
    try:
        found = {file.name: str(file.locate()) for file in files(_PACKAGE) or ()}
    except PackageNotFoundError:
        return None
    paths = [found.get(name, "") for name in _LIBRARIES]
    # The loader takes spaces and colons for the end of a path.
    return ":".join(paths) if all(path and not set(path) & {" ", ":"} for path in paths) else None


def with_allocator(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a new process that compiles: an allocator can only be chosen when a process begins. One that
    somebody chose stays."""
    libraries = None if "LD_PRELOAD" in environment else allocator(environment)
    return {**environment} if libraries is None else {**_SETTINGS, **environment, "LD_PRELOAD": libraries}
