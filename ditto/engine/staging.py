"""A tree is written aside and takes its place at once, or not at all.

Whatever ends a build (an error, a signal, a full disk, kill -9, loss of power), the folder holds the old tree or the
new one, whole. A build that was killed leaves its folder aside behind; the next one clears it away.
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
from ditto.outputs import check_folder

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# What a disk says when it does not take what is written.
_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file grew larger than is allowed here",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk fails",
}


@contextmanager
def staged(out: Path, apart: Mapping[str, Path] | None = None) -> Generator[Path]:
    """A new folder that becomes `out` when the block succeeds; when it fails, `out` is as it was.

    An engine tree that is there already is replaced; files in it that are not Ditto's are kept. A link stays a link.

    Args:
        apart: see `check_folder`.

    Raises:
        OutputError: `out` is a file, is a folder with something else in it, is being built already, or cannot be
            written.
    """
    final = check_folder(out, apart)
    aside = final.parent / f".{final.name}.partial"
    with ExitStack() as held:
        with _writing(out):
            _check_replaceable(final, out)
            held.enter_context(_parents(final))
            held.enter_context(locked(final.parent / f".{final.name}.lock", out))
            _discard(aside, final)
            aside.mkdir()
        try:
            with _writing(out, _DISK_ERRORS):
                if (final / NAME).is_file():
                    _check_exchange(aside, out)
                yield aside
            with _writing(out):
                _settle(aside)
                _into_place(aside, final)
        finally:
            with _writing(out):
                _discard(aside, final)


def _check_replaceable(final: Path, out: Path) -> None:
    if not final.exists():
        return
    if any(final.iterdir()) and not _is_tree(final):
        raise OutputError(
            "the output folder holds something that is not an engine tree",
            where=str(out),
            remedy="give a new folder, or empty this one",
        )
    if final.is_mount():
        raise OutputError(
            "the output folder is a mount point, which cannot be replaced in one step",
            where=str(out),
            remedy="give a folder inside it",
        )
    if not os.access(final, os.W_OK):
        raise OutputError("the output folder cannot be written", where=str(out), remedy="give a folder of your own")


@contextmanager
def _parents(final: Path) -> Generator[None]:
    """The folders above; those that were made for a build that fails go with it."""
    missing = [folder for folder in final.parents if not folder.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):  # they are not empty
            for folder in missing:
                folder.rmdir()


def _is_tree(folder: Path) -> bool:
    """Whether a folder is an engine tree, be it a damaged one: its manifest is not a file of somebody else's."""
    path = folder / NAME
    if path.is_symlink() or not path.is_file():
        return False
    try:
        data = read_json(path)
    except (OSError, ValueError):
        return True
    return isinstance(data, dict) and (not data or bool({"digest", "format", "components"} & set(data)))


def _check_exchange(aside: Path, out: Path) -> None:
    """Learn before the work whether this disk can do what replaces a tree after it."""
    left, right = aside / "left", aside / "right"
    left.mkdir()
    right.mkdir()
    try:
        _exchange(left, right)
    except (OSError, AttributeError) as error:
        raise OutputError(
            f"this disk cannot exchange two folders in one step: {error}",
            where=str(out),
            remedy="give a new folder, or remove the old tree first",
        ) from error
    left.rmdir()
    right.rmdir()


def _settle(aside: Path) -> None:
    """Usual modes (some writers make private files), and everything on the disk before the tree takes its place."""
    mask = _umask()
    for folder, _, names in os.walk(aside):
        for name in names:
            os.chmod(os.path.join(folder, name), 0o666 & ~mask)
            _sync(os.path.join(folder, name))
        os.chmod(folder, 0o777 & ~mask)
        _sync(folder)


def _into_place(aside: Path, final: Path) -> None:
    if (final / NAME).is_file():
        _exchange(aside, final)  # `aside` now is the old tree
    else:
        aside.rename(final)  # over an empty folder too; one that somebody has put something into stays
    _sync(final.parent)


def _exchange(left: Path, right: Path) -> None:
    """Swap two folders in one step (Linux `renameat2`), so that `right` is whole at every moment."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (os.fsencode(left), os.fsencode(right))
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(right))


def _discard(aside: Path, final: Path) -> None:
    """Remove a folder aside. If it is the old tree of `final`, the user's own files in it go back to their places."""
    if final.is_dir():
        for name in list(_users_own(aside)):
            place = final / name
            if not os.path.lexists(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                (aside / name).rename(place)
    shutil.rmtree(aside, ignore_errors=True)


def _users_own(tree: Path) -> Iterator[str]:
    """The files of a tree that its manifest does not name; all, if the manifest cannot be read; none without one."""
    if not (tree / NAME).is_file():
        return
    try:
        recorded = set(read_manifest(tree).files)
    except TreeError:
        recorded = set[str]()
    for folder, folders, names in os.walk(tree):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            relative = os.path.relpath(os.path.join(folder, name), tree)
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
    """Turn what the disk says into an `OutputError`: everything, or only the errors that are `known`.

    Only the folder aside is written to while a tree is built, so a full disk is the output's wherever it shows.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _number(error)
        if number is None or (known is not None and number not in known):
            raise
        raise OutputError(
            f"the output folder cannot be written: {_DISK_ERRORS.get(number) or os.strerror(number)}",
            where=str(out),
            remedy="give a folder of your own on a disk with room",
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
