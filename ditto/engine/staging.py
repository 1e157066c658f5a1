"""A tree is written aside and takes its place at once, or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ditto.engine.manifest import NAME
from ditto.errors import OutputError

# What a tree may hold at its top; anything else in an old tree is the user's own and stays.
_OWN = frozenset(
    {
        NAME,
        "config.json",
        "llm",
        "model.engine",
        "network.json",
        "network.safetensors",
        "processor",
        "rank0.engine",
        "vision",
        "weights.safetensors",
    }
)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def staged(out: Path) -> Generator[Path]:
    """A new folder that becomes `out` when the block succeeds; when it fails, `out` is as it was.

    An engine tree that is there already is replaced; files in it that are not Ditto's are kept.

    Raises:
        OutputError: `out` is a file, is a folder with something else in it, or cannot be written.
    """
    final = Path(os.path.realpath(out))
    _check_replaceable(final, out)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
    except OSError as error:
        raise _not_writable(out, error) from error
    try:
        aside.chmod(0o777 & ~_umask())
        yield aside
        try:
            for path in aside.rglob("*"):  # some writers make private files
                path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
            _into_place(aside, final)
        except OSError as error:
            raise _not_writable(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_replaceable(final: Path, out: Path) -> None:
    if not final.exists():
        return
    if not final.is_dir():
        raise OutputError("the output is a file", where=str(out), remedy="give a folder")
    try:
        entries = {entry.name for entry in final.iterdir()}
    except OSError as error:
        raise _not_writable(out, error) from error
    if entries and NAME not in entries:
        raise OutputError(
            "the output folder holds something that is not an engine tree",
            where=str(out),
            remedy="give a new folder, or empty this one",
        )
    if not os.access(final, os.W_OK):
        raise OutputError("the output folder cannot be written", where=str(out), remedy="give a folder of your own")


def _into_place(aside: Path, final: Path) -> None:
    if not final.exists():
        aside.rename(final)
        return
    _exchange(aside, final)  # `aside` now is the old tree
    for entry in list(aside.iterdir()):
        if entry.name not in _OWN:
            entry.rename(final / entry.name)


def _exchange(left: Path, right: Path) -> None:
    """Swap two folders in one step (Linux `renameat2`), so that `right` is whole at every moment."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (os.fsencode(left), os.fsencode(right))
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(right))


def _not_writable(out: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the output folder cannot be written: {error.strerror or error}",
        where=str(out),
        remedy="give a folder of your own on a disk with room",
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
