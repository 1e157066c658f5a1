"""Kernels that TensorRT-RTX compiled for this GPU, kept between processes.

TensorRT-RTX compiles an engine's kernels when they are first used: seconds for a large model, in each new process. Its
runtime cache can be written down. What is read back it checks itself, against the GPU, the driver and its own version,
and refuses if they are others.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from loguru import logger


def cache_folder() -> Path | None:
    """Where kernels are kept: `DITTO_CACHE`, or `ditto` in the user's cache folder; None if `DITTO_CACHE` is empty."""
    chosen = os.environ.get("DITTO_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ditto"


class Kernels:
    """The kernels of one engine on one kind of GPU.

    Args:
        cache: TensorRT-RTX's `IRuntimeCache`, filled from the file if there is one.
        path: of the file; None keeps nothing.
    """

    def __init__(self, cache: Any, path: Path | None) -> None:
        self.cache, self._path = cache, path
        self._kept = 0
        if path is None:
            return
        try:
            content = path.read_bytes()
        except OSError:  # nothing is kept yet
            return
        if cache.deserialize(content):
            self._kept = len(content)
        else:
            logger.info("the kernels in {} are of another GPU, driver or TensorRT: they are compiled again", path)

    def save(self) -> None:
        """Write the file if there are new kernels. That it cannot be written costs time in the next process only."""
        if self._path is None:
            return
        content = memoryview(self.cache.serialize())
        if content.nbytes <= self._kept:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._path.parent) as aside:
                (Path(aside) / "kernels").write_bytes(content)
                (Path(aside) / "kernels").replace(self._path)
        except OSError as error:
            logger.info("kernels cannot be kept for the next process: {}", error)
            return
        self._kept = content.nbytes
