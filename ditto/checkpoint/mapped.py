"""Files as memory: tensors that the operating system reads when they are used and may forget when it needs room."""

from __future__ import annotations

import mmap
import tempfile
import warnings
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

    def keep(self, tensor: Tensor) -> Tensor:
        """The same numbers, in the file."""
        data = tensor.contiguous()
        if not data.numel():
            return data
        grain = mmap.ALLOCATIONGRANULARITY
        start = (self._file.seek(0, 2) + grain - 1) // grain * grain
        self._file.seek(start)
        self._file.write(data.reshape(-1).view(torch.uint8).numpy().data)
        self._file.flush()
        made = mmap.mmap(self._file.fileno(), data.nbytes, access=mmap.ACCESS_READ, offset=start)
        self._maps.append(made)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            return torch.frombuffer(made, dtype=data.dtype).reshape(data.shape)

    def release(self) -> None:
        """Take the file's pages out of this process; they come back from the file when used again."""
        for made in self._maps:
            made.madvise(mmap.MADV_DONTNEED)
