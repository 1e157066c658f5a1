"""Text dumps of a build's intermediate stages, one file per stage."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ditto.errors import OutputError
from ditto.outputs import check_folder

_folder: ContextVar[Path | None] = ContextVar("ditto_dumps", default=None)


@contextmanager
def dumping(folder: Path | None, apart: Mapping[str, Path] | None = None) -> Generator[None]:
    """Context that writes dumps to a new or empty directory.

    Args:
        folder: the directory, created when the first text is written; None to write nothing.
        apart: other directories in use meanwhile, by description, e.g. `the checkpoint`.
    Raises:
        OutputError: the directory is not empty, has a forbidden location, or cannot be read.
    """
    if folder is not None:
        final = check_folder(folder, apart, replaced=False)
        try:
            used = final.exists() and any(final.iterdir())
        except OSError as error:
            raise OutputError(f"the dump folder cannot be read: {error.strerror}", where=str(folder)) from error
        if used:
            raise OutputError("the dump folder is not empty", where=str(folder), remedy="give a new folder")
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


@contextmanager
def dumping_part(name: str) -> Generator[None]:
    """Context that writes dumps to a subdirectory of that name."""
    folder = _folder.get()
    token = _folder.set(None if folder is None else folder / name)
    try:
        yield
    finally:
        _folder.reset(token)


def dump(stage: str, text: Callable[[], str]) -> None:
    """Write the text of a stage, numbered after earlier stages.

    Args:
        text: produces the text; called only if dumps are written.
    Raises:
        OutputError: the text cannot be written.
    """
    folder = _folder.get()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))
        (folder / f"{number:02} {stage}.txt").write_text(text(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"a dump cannot be written: {error.strerror}", where=str(folder)) from error
