"""One builder of a tree at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ditto.errors import OutputError

_held: set[int] = set()
# How long to wait for the children of a holder that is gone. They were killed with it, or soon notice.
_ORPHAN_SECONDS = 10.0
_SECONDS_BETWEEN_LOOKS = 0.02


def held_locks() -> tuple[int, ...]:
    """Descriptors of the locks that this process holds. A child that inherits them holds them too, to its own end, so
    that nobody builds in its way after this process has died."""
    return tuple(_held)


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
        _held.add(file.fileno())
        try:
            yield
        finally:
            _held.discard(file.fileno())
            path.unlink(missing_ok=True)  # while it is held: whoever has opened it sees that it is gone


def _taken(path: Path, out: Path) -> TextIO:
    until = time.monotonic() + _ORPHAN_SECONDS
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
            if _is_gone(holder) and time.monotonic() < until:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                continue
            raise OutputError(
                f"this tree is being built right now{f' by process {holder}' if holder else ''}",
                where=str(out),
                remedy="wait for that build, or give another folder",
            ) from None
        except BaseException:
            file.close()
            raise
        file.close()


def _is_gone(holder: str) -> bool:
    """Whether the process of that number has ended, so that it is a child of its that still holds the lock."""
    try:
        state = Path("/proc", holder, "stat").read_text().rpartition(")")[2].split()[0] if holder.isdigit() else ""
    except OSError:
        return True
    return state == "Z"


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether `path` still is this file: its last holder may have removed it between our opening and locking it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
