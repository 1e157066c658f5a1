"""Digests of files, computed on all CPU cores."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import frozen

from ditto.files import open_regular

PIECE_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20


@frozen(kw_only=True)
class FileRecord:
    """A file's size and digest.

    Args:
        sha256: digest of the content; for a file longer than `PIECE_BYTES`, digest of its pieces' concatenated digests.
    """

    bytes: int
    sha256: str


def file_record(path: Path) -> FileRecord:
    """Size and digest of a file, whose pieces are read and hashed in parallel.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        starts = range(0, size, PIECE_BYTES)
        if len(starts) <= 1:
            return FileRecord(bytes=size, sha256=_piece(descriptor, 0).hex())
        with ThreadPoolExecutor(min(len(starts), len(os.sched_getaffinity(0)))) as pool:
            pieces = list(pool.map(lambda start: _piece(descriptor, start), starts))
        return FileRecord(bytes=size, sha256=hashlib.sha256(b"".join(pieces)).hexdigest())


def _piece(descriptor: int, start: int) -> bytes:
    digest = hashlib.sha256()
    for offset in range(start, start + PIECE_BYTES, _BLOCK_BYTES):
        block = os.pread(descriptor, _BLOCK_BYTES, offset)
        if not block:
            break
        digest.update(block)
    return digest.digest()
