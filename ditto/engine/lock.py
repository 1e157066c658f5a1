"""One builder of a tree at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ditto.errors import OutputError


@contextmanager
def locked(path: Path, out: Path) -> Generator[None]:
    """Hold the lock file `path` for the tree `out`. The kernel drops it with the process, however that ends, so a file
    that was left behind locks nothing.

    Raises:
        OutputError: another process, or another thread of this one, holds it.
        OSError: the file cannot be made.
    """
    with _taken(path, out) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: whoever has opened it sees that it is gone


def _taken(path: Path, out: Path) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
        except BlockingIOError:
            file.seek(0)
            holder = file.read(20)
            file.close()
            raise OutputError(
                f"this tree is being built right now{f' by process {holder}' if holder else ''}",
                where=str(out),
                remedy="wait for that build, or give another folder",
            ) from None
        except BaseException:
            file.close()
            raise
        file.close()


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether `path` still is this file: its last holder may have removed it between our opening and locking it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
