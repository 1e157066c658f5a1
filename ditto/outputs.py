"""Checks of the output directories and files that a user names.

No user data is lost: a directory replaces only an empty one or an engine tree, and never the working directory; a file
replaces only one that the same command wrote before.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ditto.errors import OutputError

MANIFEST = "ditto.json"
_HEAD_BYTES = 4096


def check_directory(out: Path, apart: Mapping[str, Path] | None = None, replaced: bool = True) -> Path:
    """Check an output directory and return its real path, with links resolved.

    Args:
        apart: other directories that the command uses, by description, e.g. `the checkpoint`.
        replaced: whether another directory will replace it; then it must not be or hold the working directory.
    Raises:
        OutputError: the path is not a directory, holds the working directory, is inside an engine tree, or overlaps
            with another directory.
    """
    final = _real(out)
    try:
        found = os.stat(final)
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise OutputError(f"the output directory cannot be written: {error.strerror}", where=str(out)) from error
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise OutputError("the output is a file", where=str(out), remedy="give a directory")
    if replaced and found is not None and (found.st_dev, found.st_ino) in _working_directories():
        raise OutputError(
            "the output directory is or holds the working directory, which cannot be replaced",
            where=str(out),
            remedy="give a directory inside it, or run the command from another directory",
        )
    tree = _tree_above(final)
    if tree is not None:
        raise OutputError(
            "the output directory lies inside an engine tree", where=str(tree), remedy="give a directory outside of it"
        )
    for name, other in (apart or {}).items():
        real = _real(other)
        if real == final or real in final.parents or final in real.parents:
            how = "is" if real == final else "holds" if final in real.parents else "lies inside"
            raise OutputError(
                f"the output directory {how} {name}", where=str(out), remedy="give a directory that lies elsewhere"
            )
    return final


def check_file(path: Path, mark: str) -> Path:
    """Check an output file and return its real path, with links resolved.

    Args:
        mark: text at the beginning of files that the same command writes; only such a file, or an empty one, is
            replaced.
    Raises:
        OutputError: the file cannot be written, was not written by this command, or is inside an engine tree.
    """
    final = _real(path)
    if not final.parent.is_dir():
        raise OutputError("there is no such directory to write to", where=str(path), remedy="make it, or name another")
    if not os.access(final.parent, os.W_OK) and not _is_stream(final):
        raise OutputError("the directory cannot be written to", where=str(path), remedy="name a directory of your own")
    tree = _tree_above(final.parent)
    if tree is not None or (final.name == MANIFEST and os.path.lexists(final)):
        raise OutputError(
            "the file would lie among the files of an engine tree",
            where=str(path),
            remedy="give a file outside of the tree",
        )
    try:
        kind = os.stat(final).st_mode
    except FileNotFoundError:
        return final
    except OSError as error:
        raise OutputError(f"the file cannot be written: {error.strerror}", where=str(path)) from error
    if stat.S_ISREG(kind) and not _is_ours(final, mark, path):
        raise OutputError(
            "the file is there already, and this command did not write it",
            where=str(path),
            remedy="give a new file, or remove this one first",
        )
    if stat.S_ISDIR(kind):
        raise OutputError("the output is a directory", where=str(path), remedy="give a file")
    return final


def write_file(path: Path, content: bytes, mark: str) -> None:
    """Write a file atomically, after `check_file`; until then the old file stays.

    Raises:
        OutputError: the file cannot be written, or the existing file must not be replaced.
    """
    final = check_file(path, mark)
    try:
        if _is_stream(final):
            # Opening a pipe without a reader would block for ever.
            descriptor = os.open(final, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            os.set_blocking(descriptor, True)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            return
        handle, temporary = tempfile.mkstemp(dir=final.parent, prefix=".ditto-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OutputError(f"the file cannot be written: {error.strerror}", where=str(path)) from error


def _is_stream(path: Path) -> bool:
    """Whether a path is a pipe or device, e.g. a terminal or /dev/null."""
    try:
        kind = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def _is_ours(final: Path, mark: str, path: Path) -> bool:
    try:
        with final.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise OutputError(f"the file cannot be written: {error.strerror}", where=str(path)) from error
    return not head or mark.encode() in head


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:  # the working directory is gone, or an invalid name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"the output cannot be written: {reason}", where=str(path)) from error


def _working_directories() -> set[tuple[int, int]]:
    """Device and inode of the working directory and all its parents."""
    try:
        here = Path(os.getcwd())
    except OSError:
        return set()
    found: set[tuple[int, int]] = set()
    for directory in (here, *here.parents):
        with contextlib.suppress(OSError):
            status = os.stat(directory)
            found.add((status.st_dev, status.st_ino))
    return found


def _tree_above(place: Path) -> Path | None:
    """The nearest engine tree among the parents of a path; the path itself may be a tree."""
    return next((directory for directory in place.parents if os.path.lexists(directory / MANIFEST)), None)
