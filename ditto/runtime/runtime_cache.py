"""Kernels that TensorRT-RTX compiled for this GPU, kept between processes.

TensorRT-RTX compiles an engine's kernels when they are first used: seconds for a large model, in each new process. Its
runtime cache can be written down. What is read back it checks itself, against the GPU, the driver and its own version,
and refuses if they are others.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from loguru import logger


class RuntimeCache:
    """The kernels of a component's engines on one kind of GPU: what is compiled for one of them, those like it have.

    Args:
        path: of the file that keeps them; None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._cache: Any = None
        self._kept = 0
        self._met: set[object] = set()
        self._has_new = False

    def give(self, config: Any) -> None:
        """Let contexts that are made with an `IRuntimeConfig` have them, those of the file too, and add to them."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._read()
        config.set_runtime_cache(self._cache)

    def meets(self, shape: object) -> None:
        """An engine takes a shape: for a new one kernels may be compiled."""
        if shape not in self._met:
            self._met.add(shape)
            self._has_new = True

    def keep(self) -> None:
        """Keep what was compiled since the last call for the next process, however this one ends."""
        if self._has_new:
            self.save()
            self._has_new = False

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            content = self._path.read_bytes()
        except OSError:  # nothing is kept yet
            return
        if self._cache.deserialize(content):
            self._kept = len(content)
        else:
            where = self._path
            logger.info("the kernels in {} are of another GPU, driver or TensorRT: they are compiled again", where)

    def save(self) -> None:
        """Write the file if there are new kernels. That it cannot be written costs time in the next process only."""
        if self._path is None or self._cache is None:
            return
        content = memoryview(self._cache.serialize())
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
