"""A checkpoint's tensors, memory-mapped: nothing is read before it is used, nothing is held twice."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from ditto.checkpoint.index import CheckpointIndex
from ditto.checkpoint.mapped import MappedFile
from ditto.errors import CheckpointError


class CheckpointReader:
    """Gives tensors by name as views of memory-mapped shards; remembers which were asked for."""

    def __init__(self, index: CheckpointIndex) -> None:
        self.index = index
        self.used: set[str] = set()
        self._files: dict[Path, MappedFile] = {}

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, on the CPU, in the file's memory map.

        Raises:
            CheckpointError: there is none, or its file cannot be mapped.
        """
        record = self.index.tensors.get(name)
        if record is None:
            raise CheckpointError(
                f"the checkpoint has no tensor `{name}`",
                where=str(self.index.folder),
                remedy="build from the checkpoint that the network was described with",
            )
        self.used.add(name)
        try:
            if record.file not in self._files:
                self._files[record.file] = MappedFile(record.file)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"cannot read tensor `{name}`: {error}", where=str(record.file), remedy="download the checkpoint again"
            ) from error
        return self._files[record.file].tensor(record.start, record.shape, record.dtype)

    def differ(self, one: str, other: str) -> bool:
        """Whether two tensors hold different values."""
        first, second = self.tensor(one), self.tensor(other)
        if first.shape != second.shape or first.dtype != second.dtype:
            return True
        return first.data_ptr() != second.data_ptr() and not torch.equal(first, second)

    def release(self) -> None:
        """Take the shards' pages out of this process; they come back from the files when used again."""
        for file in tuple(self._files.values()):  # another thread may be asking for tensors
            file.release()

    def unused(self) -> Collection[str]:
        """The names that nobody asked for, sorted."""
        return sorted(set(self.index.tensors) - self.used)
