"""Files as memory: tensors that the operating system reads when they are used and may forget when it needs room."""

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
    """A file mapped for reading. Tensors are views of it; they must not be written to."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def tensor(self, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor whose bytes begin at `start`."""
        count = 1
        for size in shape:
            count *= size
        if not count:
            return torch.empty(shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            return torch.frombuffer(self._map, dtype=dtype, count=count, offset=start).reshape(shape)

    def release(self) -> None:
        """Take the file's pages out of this process; they come back from the file when used again."""
        self._map.madvise(mmap.MADV_DONTNEED)


class Spool:
    """Computed tensors on disk instead of in memory: a file without a name, gone with the process.

    Args:
        folder: on the disk to use.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the tensors
        self._maps: list[mmap.mmap] = []
        self._end = 0

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor to be written to, in the file.

        Raises:
            OSError: the disk is full.
        """
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return torch.empty(shape, dtype=dtype)
        start = self._end
        self._end += -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        os.posix_fallocate(self._file.fileno(), start, size)  # writing to memory without a place on disk would kill us
        made = mmap.mmap(self._file.fileno(), size, offset=start)
        self._maps.append(made)
        return torch.frombuffer(made, dtype=dtype).reshape(tuple(shape))

    def release(self) -> None:
        """Take the file's pages out of this process; they come back from the file when used again."""
        for made in self._maps:
            made.madvise(mmap.MADV_DONTNEED)
