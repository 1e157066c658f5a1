"""Location of Ditto's cache directory."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path | None:
    """The cache directory: `DITTO_CACHE`, or `ditto` in the user's cache directory.

    None if `DITTO_CACHE` is empty or the user has no home directory.
    """
    chosen = os.environ.get("DITTO_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ditto"
    except RuntimeError:  # the home directory is unknown
        return None
