"""Atomic replacement of a tree, which is written to a staging directory first.

However a build ends (an error, a signal, a full disk, kill -9, loss of power), the output directory holds either the
old tree or the new one, complete. A killed build leaves its staging directory behind; the next build removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Container, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from ditto.engine.lock import locked
from ditto.engine.manifest import NAME, read_manifest
from ditto.errors import OutputError, TreeError
from ditto.files import read_json
from ditto.outputs import check_directory

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# Errors of a disk that rejects writes.
_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file grew larger than is allowed here",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk fails",
}


@contextmanager
def staged(out: Path, apart: Mapping[str, Path] | None = None) -> Generator[Path]:
    """A staging directory that becomes `out` when the block succeeds.

    When the block fails, `out` stays unchanged. An existing engine tree is replaced; files in it that are not Ditto's
    are kept. A symbolic link stays a link.

    Args:
        apart: see `check_directory`.

    Raises:
        OutputError: `out` is a file, contains something other than an engine tree, is being built already, or cannot
            be written.
    """
    final = check_directory(out, apart)
    staging = final.parent / f".{final.name}.partial"
    with ExitStack() as held:
        with _writing(out):
            _check_replaceable(final, out)
            held.enter_context(_parents(final))
            held.enter_context(locked(final.parent / f".{final.name}.lock", out))
            _discard(staging, final)
            staging.mkdir()
        try:
            with _writing(out, _DISK_ERRORS):
                if (final / NAME).is_file():
                    _check_exchange(staging, out)
                yield staging
            with _writing(out):
                _finish_files(staging)
                _into_place(staging, final)
        finally:
            with _writing(out):
                _discard(staging, final)


def _check_replaceable(final: Path, out: Path) -> None:
    if not final.exists():
        return
    if any(final.iterdir()) and not _is_tree(final):
        raise OutputError(
            "the output directory holds something that is not an engine tree",
            where=str(out),
            remedy="give a new directory, or empty this one",
        )
    if final.is_mount():
        raise OutputError(
            "the output directory is a mount point, which cannot be replaced in one step",
            where=str(out),
            remedy="give a directory inside it",
        )
    if not os.access(final, os.W_OK):
        raise OutputError(
            "the output directory cannot be written", where=str(out), remedy="give a directory of your own"
        )


@contextmanager
def _parents(final: Path) -> Generator[None]:
    """Create missing parent directories; at the end remove those that are empty."""
    missing = [directory for directory in final.parents if not directory.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):  # they are not empty
            for directory in missing:
                directory.rmdir()


def _is_tree(directory: Path) -> bool:
    """Whether a directory is an engine tree, possibly a damaged one.

    A `ditto.json` that was not written by Ditto does not count.
    """
    path = directory / NAME
    if path.is_symlink() or not path.is_file():
        return False
    try:
        data = read_json(path)
    except (OSError, ValueError):
        return True
    return isinstance(data, dict) and (not data or bool({"digest", "format", "components"} & set(data)))


def _check_exchange(staging: Path, out: Path) -> None:
    """Check before the build that this disk can exchange two directories in one step."""
    left, right = staging / "left", staging / "right"
    left.mkdir()
    right.mkdir()
    try:
        _exchange(left, right)
    except (OSError, AttributeError) as error:
        raise OutputError(
            f"this disk cannot exchange two directories in one step: {error}",
            where=str(out),
            remedy="give a new directory, or remove the old tree first",
        ) from error
    left.rmdir()
    right.rmdir()


def _finish_files(staging: Path) -> None:
    """Set default file modes (some writers create private files) and flush to disk."""
    mask = _umask()
    for directory, _, names in os.walk(staging):
        for name in names:
            os.chmod(os.path.join(directory, name), 0o666 & ~mask)
            _sync(os.path.join(directory, name))
        os.chmod(directory, 0o777 & ~mask)
        _sync(directory)


def _into_place(staging: Path, final: Path) -> None:
    if (final / NAME).is_file():
        _exchange(staging, final)  # `staging` is now the old tree
    else:
        staging.rename(final)  # replaces an empty directory, but fails if files were added to it meanwhile
    _sync(final.parent)


def _exchange(left: Path, right: Path) -> None:
    """Swap two directories atomically with Linux's `renameat2`.

    `right` is complete at every moment.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (os.fsencode(left), os.fsencode(right))
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(right))


def _discard(staging: Path, final: Path) -> None:
    """Remove a staging directory.

    If it is the old tree of `final`, move the user's own files in it to the same paths in `final`.
    """
    if final.is_dir():
        for name in list(_user_files(staging)):
            place = final / name
            if not os.path.lexists(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                (staging / name).rename(place)
    shutil.rmtree(staging, ignore_errors=True)


def _user_files(tree: Path) -> Iterator[str]:
    """Files of a tree that its manifest does not name.

    All files if the manifest cannot be read; none without a manifest.
    """
    if not (tree / NAME).is_file():
        return
    try:
        recorded = set(read_manifest(tree).files)
    except TreeError:
        recorded = set[str]()
    for directory, directories, names in os.walk(tree):
        for name in [*names, *(name for name in directories if os.path.islink(os.path.join(directory, name)))]:
            relative = os.path.relpath(os.path.join(directory, name), tree)
            if relative != NAME and relative not in recorded:
                yield relative


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(out: Path, known: Container[int] | None = None) -> Generator[None]:
    """Turn disk errors into an `OutputError`.

    A build writes only to the staging directory, so a full disk is always the output's.

    Args:
        known: the error numbers to convert; None for all.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _number(error)
        if number is None or (known is not None and number not in known):
            raise
        raise OutputError(
            f"the output directory cannot be written: {_DISK_ERRORS.get(number) or os.strerror(number)}",
            where=str(out),
            remedy="give a directory of your own on a disk with room",
        ) from error


def _number(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
