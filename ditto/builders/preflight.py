"""Preflight check: memory and disk space of this machine for a build."""

from __future__ import annotations

import shutil
from pathlib import Path

from ditto.errors import InsufficientResourcesError
from ditto.units import size_text

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes of memory available to this process, swap included.

    The minimum of the machine's and, if it has a limit, the control group's (cgroup).
    """
    known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    machine = sum(int(known[name].split()[0]) for name in ("MemAvailable", "SwapFree")) * 1024
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:  # not in its own control group
        return machine
    return machine if limit == "max" else min(machine, int(limit) - int(used))


def free_disk(directory: Path) -> int:
    """Free bytes on the file system of a directory, which may not exist yet."""
    existing = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def check_resources(out: Path, disk: int, memory: int) -> None:
    """Refuse a build that exceeds this machine's resources.

    Args:
        disk, memory: bytes that the build needs.
    Raises:
        InsufficientResourcesError: fewer bytes are available; the error states both figures.
    """
    free = free_disk(out)
    if disk > free:
        raise InsufficientResourcesError(
            f"the build needs {size_text(disk)} of disk, {size_text(free)} are free",
            where=str(out),
            remedy="free some, use another disk, or keep the weights in the checkpoint: --weights external",
        )
    available = available_memory()
    if memory > available:
        raise InsufficientResourcesError(
            f"the build needs {size_text(memory)} of memory, {size_text(available)} are available",
            remedy="keep the weights in the checkpoint (--weights external), or build on a machine with more",
        )
