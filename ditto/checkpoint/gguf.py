"""Headers of GGUF files: metadata, and the kind, shape and place of each tensor."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from attrs import field, frozen

from ditto.errors import CheckpointError
from ditto.files import open_regular

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_MAX_COUNT = 100_000_000
_MAX_RANK = 4
# `struct` formats of metadata values, by their number in the file; strings and arrays are read in their own way.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@frozen
class Kind:
    """How a GGUF tensor is stored.

    Args:
        name: the format's name of it.
        dtype: of plain values; uint8 for blocks.
        block_bytes: size of a block of 32 columns; 0 for plain values.
    """

    name: str
    dtype: torch.dtype
    block_bytes: int = 0


BLOCK = 32
_KINDS = {
    0: Kind("F32", torch.float32),
    1: Kind("F16", torch.float16),
    2: Kind("Q4_0", torch.uint8, 18),
    3: Kind("Q4_1", torch.uint8, 20),
    8: Kind("Q8_0", torch.uint8, 34),
    30: Kind("BF16", torch.bfloat16),
}
_OTHER_KINDS = {
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}


@frozen
class GgufTensor:
    """A tensor of a GGUF file.

    Args:
        shape: of the values, rows before columns.
        start, stop: range of bytes in the file.
    """

    kind: Kind
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in the file: of the values, or the bytes of each row's blocks."""
        if not self.kind.block_bytes:
            return self.shape
        return (*self.shape[:-1], self.shape[-1] // BLOCK * self.kind.block_bytes)


@frozen
class GgufHeader:
    """Metadata and tensors of a GGUF file."""

    metadata: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, GgufTensor]


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path names: itself, or the only one of a directory without config.json; None if neither.

    Raises:
        CheckpointError: the directory has several.
    """
    if path.is_file():
        return path.resolve() if path.suffix == ".gguf" else None
    if (path / "config.json").exists():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise CheckpointError(
            f"The directory has {len(files)} GGUF files: {', '.join(file.name for file in files[:3])}.",
            where=str(path),
            remedy="name one of the files",
        )
    return files[0].resolve() if files else None


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file; no values are read.

    Raises:
        CheckpointError: the file is damaged, one of several, or has tensors of a kind that is not read.
    """
    try:
        with open_regular(path) as file:
            return _Parser(file, path).header()
    except (OSError, ValueError, struct.error) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"the GGUF file is damaged: {reason}", where=str(path), remedy="download the checkpoint again"
    )


class _Parser:
    """Reads the parts of a header in order."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self._size = file, path, path.stat().st_size

    def header(self) -> GgufHeader:
        if self._bytes(4) != _MAGIC:
            raise ValueError("it does not begin with `GGUF`")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise CheckpointError(
                f"GGUF files of version {version} are not read, 2 and 3 in little-endian order are",
                where=str(self._path),
                remedy="convert the model again with a current llama.cpp",
            )
        tensor_count, pair_count = self._count(), self._count()
        metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = self._string()
            if key in metadata:
                raise ValueError(f"the key {key!r} is there twice")
            metadata[key] = self._value(self._scalar("I"))
        if metadata.get("split.count", 1) not in (0, 1):
            raise CheckpointError(
                f"The GGUF file is one of {metadata['split.count']}, and only whole models are read.",
                where=str(self._path),
                remedy="merge the files with llama.cpp's `llama-gguf-split --merge`",
            )
        infos = [self._info() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 8 or alignment % 8:
            raise ValueError(f"its alignment is {alignment!r}")
        base = -(-self._file.tell() // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        end = base
        for name, kind, shape, offset in sorted(infos, key=lambda info: info[3]):
            start = base + offset
            placed = GgufTensor(kind, shape, start, start)
            stop = start + math.prod(placed.stored_shape) * kind.dtype.itemsize
            if name in tensors or offset % alignment or start < end or stop > self._size:
                raise ValueError(f"the tensor `{name}` is there twice, overlaps another one, or lies beyond the end")
            tensors[name], end = GgufTensor(kind, shape, start, stop), stop
        return GgufHeader(metadata, tensors)

    def _bytes(self, count: int) -> bytes:
        if count > self._size:
            raise ValueError("a length exceeds the file")
        found = self._file.read(count)
        if len(found) != count:
            raise ValueError("it ends within its header")
        return found

    def _scalar(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))[0]

    def _count(self) -> int:
        count = self._scalar("Q")
        if count > min(_MAX_COUNT, self._size):
            raise ValueError("a count exceeds the file")
        return count

    def _string(self) -> str:
        return self._bytes(self._scalar("Q")).decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind != _ARRAY:
            raise ValueError(f"a metadata value has the unknown type {kind}")
        inner, count = self._scalar("I"), self._count()
        if inner == _STRING:
            return [self._string() for _ in range(count)]
        if inner not in _SCALARS:
            raise ValueError(f"a metadata array has the unknown type {inner}")
        form = f"<{count}{_SCALARS[inner]}"
        return list(struct.unpack(form, self._bytes(struct.calcsize(form))))

    def _info(self) -> tuple[str, Kind, tuple[int, ...], int]:
        name, rank = self._string(), self._scalar("I")
        if not 1 <= rank <= _MAX_RANK:
            raise ValueError(f"the tensor `{name}` has {rank} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(rank))[::-1]
        number, offset = self._scalar("I"), self._scalar("Q")
        kind = _KINDS.get(number)
        if kind is None:
            raise CheckpointError(
                f"GGUF: the tensor `{name}` is {_OTHER_KINDS.get(number, f'of type {number}')}, which is not read; "
                f"{', '.join(known.name for known in _KINDS.values())} are",
                where=str(self._path),
                remedy="convert the model to one of these, e.g. with `llama-quantize --pure FILE OUT Q8_0`",
            )
        if kind.block_bytes and shape[-1] % BLOCK:
            raise ValueError(f"the tensor `{name}` has {shape[-1]} columns, not whole blocks of {BLOCK}")
        return name, kind, shape, offset
