"""Resident memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def resident_bytes() -> int:
    """Now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most so far."""
    return _status("VmHWM")
