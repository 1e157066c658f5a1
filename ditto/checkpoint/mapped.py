"""Tensors in memory-mapped files.

The operating system reads them when they are used, and may drop them when it needs memory.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


class MappedFile:
    """A file mapped for reading; its tensors are views that must not be written to."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def tensor(self, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor whose data begins at byte `start` of the file."""
        count = 1
        for size in shape:
            count *= size
        if not count:
            return torch.empty(shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            return torch.frombuffer(self._map, dtype=dtype, count=count, offset=start).reshape(shape)

    def release(self) -> None:
        """Drop the file's pages from this process's memory.

        They are read from the file again when used.
        """
        self._map.madvise(mmap.MADV_DONTNEED)


class Spool:
    """Storage for computed tensors in an unnamed file on disk.

    The file disappears when the process ends.

    Args:
        directory: a directory on the disk to use.
    """

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - lives as long as the tensors
        self._maps: list[mmap.mmap] = []
        self._end = 0

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A new tensor in the file, which may be written to.

        Raises:
            OSError: the disk is full.
        """
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return torch.empty(shape, dtype=dtype)
        start = self._end
        self._end += -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        os.posix_fallocate(self._file.fileno(), start, size)  # a write to unallocated pages would kill the process
        mapping = mmap.mmap(self._file.fileno(), size, offset=start)
        self._maps.append(mapping)
        return torch.frombuffer(mapping, dtype=dtype).reshape(tuple(shape))

    def release(self) -> None:
        """Drop the file's pages from this process's memory.

        They are read from the file again when used.
        """
        for mapping in self._maps:
            mapping.madvise(mmap.MADV_DONTNEED)
