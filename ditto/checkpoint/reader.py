"""Memory-mapped tensors of a checkpoint, read on first use and without copies."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from ditto.checkpoint.index import CheckpointIndex
from ditto.checkpoint.mapped import MappedFile
from ditto.errors import CheckpointError


class CheckpointReader:
    """Access to tensors by name, as views of memory-mapped shards.

    Records which tensors were used.
    """

    def __init__(self, index: CheckpointIndex) -> None:
        self.index = index
        self.used: set[str] = set()
        self._files: dict[Path, MappedFile] = {}

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, as a view of the file's memory map on the CPU.

        Raises:
            CheckpointError: there is no such tensor, or its file cannot be mapped.
        """
        record = self.index.tensors.get(name)
        if record is None:
            raise CheckpointError(
                f"the checkpoint has no tensor `{name}`",
                where=str(self.index.directory),
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
        """Whether two tensors differ in shape, dtype or values."""
        first, second = self.tensor(one), self.tensor(other)
        if first.shape != second.shape or first.dtype != second.dtype:
            return True
        return first.data_ptr() != second.data_ptr() and not torch.equal(first, second)

    def release(self) -> None:
        """Drop the shards' pages from this process's memory.

        They are read from the files again when used.
        """
        for file in tuple(self._files.values()):  # another thread may add files
            file.release()

    def unused(self) -> Collection[str]:
        """Names of the tensors that were not used, sorted."""
        return sorted(set(self.index.tensors) - self.used)
