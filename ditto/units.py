"""Sizes as a person reads them. One system everywhere: decimal, as disks and the makers of models count."""

from __future__ import annotations


def size_text(count: int) -> str:
    """Bytes as a person says them, e.g. `13.5 GB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
