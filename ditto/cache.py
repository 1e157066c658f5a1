"""Where Ditto keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """The folder: `DITTO_CACHE`, or `ditto` in the user's cache folder; None if `DITTO_CACHE` is empty or
    the user has no home."""
    chosen = os.environ.get("DITTO_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ditto"
    except RuntimeError:  # nobody knows the user's home
        return None
