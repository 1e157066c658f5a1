"""Lock file that allows one build of a tree at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ditto.errors import OutputError


@contextmanager
def locked(path: Path, out: Path) -> Generator[None]:
    """Hold the lock file `path` for the tree `out`.

    The kernel releases the lock when the process ends in any way, so a leftover file does not lock anything.

    Raises:
        OutputError: another process, or another thread of this one, holds the lock; or `path` is not a lock file.
        OSError: the file cannot be created.
    """
    descriptor = _acquired(path, out)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # before releasing it: other processes with the file open see that it is gone
        os.close(descriptor)


def _acquired(path: Path, out: Path) -> int:
    while True:
        descriptor = _opened(path, out)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace")
            os.close(descriptor)
            raise OutputError(
                f"this tree is being built right now{f' by process {holder}' if holder else ''}",
                where=str(out),
                remedy="wait for that build, or give another directory",
            ) from None
        except BaseException:
            if not os.fstat(descriptor).st_size:
                path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)


def _opened(path: Path, out: Path) -> int:
    """Open or create the lock file.

    Never follow a symbolic link, block on a pipe, or truncate another file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV):
            raise
        raise _foreign(path, out) from error
    kind, content = os.fstat(descriptor).st_mode, b""
    if stat.S_ISREG(kind):
        content = os.pread(descriptor, 21, 0)
    if not stat.S_ISREG(kind) or (content and not (content.isdigit() and len(content) <= 20)):
        os.close(descriptor)
        raise _foreign(path, out)
    return descriptor


def _foreign(path: Path, out: Path) -> OutputError:
    return OutputError(
        f"{path.name} is not a lock file of Ditto's",
        where=str(path),
        remedy=f"remove it, or build elsewhere than {out}",
    )


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` is still this file.

    Its last holder may have removed it after we opened it and before we locked it.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
