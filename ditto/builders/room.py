"""What this machine has to give, and whether a build fits into it."""

from __future__ import annotations

import shutil
from pathlib import Path

from ditto.errors import RoomError
from ditto.units import size_text

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes of memory, swap included, that this process may still take: the machine's, or what its control group
    leaves."""
    known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    machine = sum(int(known[name].split()[0]) for name in ("MemAvailable", "SwapFree")) * 1024
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:  # not in a control group of its own
        return machine
    return machine if limit == "max" else min(machine, int(limit) - int(used))


def free_disk(folder: Path) -> int:
    """Bytes that may be written below a folder, which need not exist yet."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def check_room(out: Path, disk: int, memory: int) -> None:
    """Refuse a build that cannot fit.

    Args:
        disk, memory: bytes that it needs.
    Raises:
        RoomError: there are fewer; both figures are named.
    """
    free = free_disk(out)
    if disk > free:
        raise RoomError(
            f"the build needs {size_text(disk)} of disk, {size_text(free)} are free",
            where=str(out),
            remedy="free some, use another disk, or keep the weights in the checkpoint: --weights external",
        )
    available = available_memory()
    if memory > available:
        raise RoomError(
            f"the build needs {size_text(memory)} of memory, {size_text(available)} are available",
            remedy="keep the weights in the checkpoint (--weights external), or build on a machine with more",
        )
