"""Index of a checkpoint directory or GGUF file, read from the headers alone."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from loguru import logger

from ditto.checkpoint.gguf import read_header
from ditto.errors import CheckpointError
from ditto.files import open_regular, parse_json, read_json

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.safetensors")
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_SAMPLE_BYTES = 4096

# Dtypes of safetensors whose values occupy whole bytes.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
}
# Dtypes in which several values share a byte, used for quantised weights.
_PACKED_DTYPES = ("F4", "F6_E2M3", "F6_E3M2")


@frozen
class TensorRecord:
    """Location of a tensor: its shard, shape, dtype, and byte range in the file."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int
    stop: int


@frozen
class CheckpointIndex:
    """The tensors of a checkpoint directory.

    Args:
        directory: directory of `model.safetensors`, or of the shards that `model.safetensors.index.json` lists; or a
            GGUF file.
        tensors: location by tensor name.
        identity: a digest of the shards' names, sizes and headers, and of samples of every tensor.
    """

    directory: Path
    tensors: Mapping[str, TensorRecord]
    identity: str

    @property
    def data_bytes(self) -> int:
        """Total size of all tensors in bytes."""
        return sum(record.stop - record.start for record in self.tensors.values())

    @staticmethod
    def open(directory: Path) -> CheckpointIndex:
        """Read the headers of a checkpoint.

        Raises:
            CheckpointError: there are no safetensors files, a shard is missing, or a file is damaged.
        """
        if directory.suffix == ".gguf" and directory.is_file():
            return _of_gguf(directory)
        shards, wanted = _shards(directory)
        index = CheckpointIndex.of_files(directory, shards)
        missing = sorted(set(wanted) - set(index.tensors))
        if missing:
            raise CheckpointError(
                f"the index names {len(missing)} tensors that no shard holds, e.g. `{missing[0]}`",
                where=str(directory / _INDEX),
                remedy="download the checkpoint again",
            )
        return index

    @staticmethod
    def of_files(directory: Path, shards: Sequence[Path]) -> CheckpointIndex:
        """Read the headers of the safetensors files of one checkpoint.

        Raises:
            CheckpointError: a file is damaged, or a tensor is in two files.
        """
        tensors: dict[str, TensorRecord] = {}
        digest = hashlib.sha256()
        for shard in shards:
            header, base = _header(shard)
            size = shard.stat().st_size
            held = {
                name: _record(shard, name, entry, base, size)
                for name, entry in header.items()
                if name != "__metadata__"
            }
            _check_cover(shard, held.values(), base, size)
            twice = sorted(tensors.keys() & held.keys())
            if twice:
                raise CheckpointError(
                    f"tensor `{twice[0]}` is in two shards, {tensors[twice[0]].file.name} and {shard.name}",
                    where=str(directory),
                    remedy="download the checkpoint again",
                )
            tensors.update(held)
            digest.update(f"{shard.name} {size} {json.dumps(header, sort_keys=True)}".encode())
        _digest_samples(tensors.values(), digest)
        return CheckpointIndex(directory, tensors, digest.hexdigest())


def _of_gguf(file: Path) -> CheckpointIndex:
    """Index of a GGUF file, whose blocks are bytes."""
    header = read_header(file)
    tensors = {
        name: TensorRecord(file, held.stored_shape, held.kind.dtype, held.start, held.stop)
        for name, held in header.tensors.items()
    }
    kinds = sorted((name, held.kind.name, held.shape, held.start) for name, held in header.tensors.items())
    settings = sorted((key, value) for key, value in header.metadata.items())
    digest = hashlib.sha256(f"{file.stat().st_size} {kinds} {settings}".encode())
    _digest_samples(tensors.values(), digest)
    return CheckpointIndex(file, tensors, digest.hexdigest())


def _shards(directory: Path) -> tuple[list[Path], Mapping[str, str]]:
    if not directory.is_dir():
        raise CheckpointError(
            "there is no such checkpoint directory",
            where=str(directory),
            remedy="give a directory or a hub id such as owner/name",
        )
    if (directory / _SINGLE).exists():  # before the index, as transformers does
        return [directory / _SINGLE], {}
    index = directory / _INDEX
    if not index.exists():
        raise CheckpointError(
            f"the checkpoint directory has no {_SINGLE} and no {_INDEX}",
            where=str(directory),
            remedy=_without_weights(directory),
        )
    try:
        mapping = read_json(index)["weight_map"]
        names = sorted(set(mapping.values()))
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError("a shard's name is not a plain file name")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"cannot read the index: {error}", where=str(index), remedy="download the checkpoint again"
        ) from error
    for name in names:
        if not (directory / name).is_file():
            raise CheckpointError(
                f"the index names the shard {name}, which is not there",
                where=str(index),
                remedy="download the checkpoint again",
            )
    extra = sorted(path.name for path in directory.glob("*.safetensors") if path.name not in names)
    if extra:
        logger.info("not read, because the index does not name it: {}", ", ".join(extra))
    return [directory / name for name in names], mapping


def _without_weights(directory: Path) -> str:
    """Remedy for a directory without safetensors files."""
    if any(directory.glob("*.gguf")):
        return "a GGUF file is not read with the config.json beside it: give the file itself"
    others = [path.name for pattern in _OTHER_WEIGHTS for path in sorted(directory.glob(pattern))]
    if others:
        return f"{others[0]} is not read, only safetensors are: save the model again with `save_pretrained`"
    return "download the checkpoint with its weights"


def _header(shard: Path) -> tuple[dict[str, Any], int]:
    def damaged(reason: str) -> CheckpointError:
        return CheckpointError(
            f"the shard is damaged: {reason}", where=str(shard), remedy="download the checkpoint again"
        )

    try:
        with open_regular(shard) as file:
            start = file.read(8)
            if len(start) < 8:
                raise damaged("it ends within its first 8 bytes")
            (length,) = struct.unpack("<Q", start)
            if length > min(_MAX_HEADER_BYTES, shard.stat().st_size - 8):
                raise damaged("its header would be longer than the file")
            header = parse_json(file.read(length))
    except OSError as error:
        raise damaged(error.strerror or str(error)) from error
    except ValueError as error:
        raise damaged(f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise damaged("its header is not a JSON object")
    return header, 8 + length


def _record(shard: Path, name: str, entry: Any, base: int, size: int) -> TensorRecord:
    def damaged(reason: str) -> CheckpointError:
        return CheckpointError(f"tensor `{name}` {reason}", where=str(shard), remedy="download the checkpoint again")

    try:
        dtype, shape = _DTYPES.get(entry["dtype"]), tuple(map(_size, entry["shape"]))
        start, stop = (base + _size(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged("has a damaged header entry") from error
    if dtype is None:
        packed = entry["dtype"] in _PACKED_DTYPES
        raise CheckpointError(
            f"Tensor `{name}` has dtype {entry['dtype']}, {'a quantised form' if packed else 'which is not known'}.",
            where=str(shard),
            remedy="build from a checkpoint in float32, float16 or bfloat16",
        )
    count = 1
    for dim in shape:
        count *= dim
    if not base <= start <= stop or stop - start != count * dtype.itemsize:
        raise damaged("has a header entry that contradicts itself")
    if stop > size:
        raise damaged("lies beyond the end of the file: it is truncated")
    return TensorRecord(shard, shape, dtype, start, stop)


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a size")
    return value


def _check_cover(shard: Path, records: Iterable[TensorRecord], base: int, size: int) -> None:
    """Check that a shard's tensors fill it from the header to the end, without gaps."""
    end = base
    for record in sorted(records, key=lambda record: (record.start, record.stop)):
        if record.start != end:
            break
        end = record.stop
    if end != size:
        raise CheckpointError(
            "the shard is damaged: its tensors do not lie one after another up to its end",
            where=str(shard),
            remedy="download the checkpoint again",
        )


def _digest_samples(records: Iterable[TensorRecord], digest: Any) -> None:
    """Add the beginning, middle and end of every tensor to a digest.

    This is cheap, and detects other weights of the same shapes.
    """
    by_file: dict[Path, list[TensorRecord]] = {}
    for record in records:
        by_file.setdefault(record.file, []).append(record)
    for path, held in by_file.items():
        with open_regular(path) as file:
            for record in sorted(held, key=lambda record: record.start):
                middle = max(record.start, (record.start + record.stop - _SAMPLE_BYTES) // 2)
                for start in (record.start, middle, max(record.start, record.stop - _SAMPLE_BYTES)):
                    file.seek(start)
                    digest.update(file.read(min(_SAMPLE_BYTES, record.stop - start)))
