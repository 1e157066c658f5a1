"""Runtime cache: kernels that TensorRT-RTX compiled for this GPU, kept between processes.

TensorRT-RTX compiles the kernels of an engine on first use, in each new process: seconds for a large model. Its runtime
cache can be saved to a file. On reading, TensorRT-RTX rejects a cache of another GPU, driver or version.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from loguru import logger


class RuntimeCache:
    """Kernel cache shared by the engines of a component on one GPU model.

    Args:
        path: the cache file; None to save nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._cache: Any = None
        self._kept = 0
        self._met: set[object] = set()
        self._has_new = False

    def give(self, config: Any) -> None:
        """Let contexts created with an `IRuntimeConfig` use the cache and add kernels to it.

        The first call loads the kernels from the file.
        """
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._read()
        config.set_runtime_cache(self._cache)

    def meets(self, shape: object) -> None:
        """Record an input shape; a new one may have kernels compiled."""
        if shape not in self._met:
            self._met.add(shape)
            self._has_new = True

    def keep(self) -> None:
        """Save kernels compiled since the last call, even if this process is killed later."""
        if self._has_new:
            self.save()
            self._has_new = False

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            content = self._path.read_bytes()
        except OSError:  # there is no cache file yet
            return
        if self._cache.deserialize(content):
            self._kept = len(content)
        else:
            where = self._path
            logger.info("the kernels in {} are of another GPU, driver or TensorRT: they are compiled again", where)

    def save(self) -> None:
        """Write the file if there are new kernels; a failure only makes the next process slower."""
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
