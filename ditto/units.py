"""Display of sizes in decimal units, as used for disks and by model publishers."""

from __future__ import annotations


def size_text(count: int) -> str:
    """Format a number of bytes, e.g. `13.5 GB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
