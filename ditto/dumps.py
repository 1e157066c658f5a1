"""Text dumps of a build's intermediate stages, one file per stage."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ditto.errors import OutputError
from ditto.outputs import check_directory

_directory: ContextVar[Path | None] = ContextVar("ditto_dumps", default=None)


@contextmanager
def dumping(directory: Path | None, apart: Mapping[str, Path] | None = None) -> Generator[None]:
    """Context that writes dumps to a new or empty directory.

    Args:
        directory: the directory, created when the first text is written; None to write nothing.
        apart: other directories in use meanwhile, by description, e.g. `the checkpoint`.
    Raises:
        OutputError: the directory is not empty, has a forbidden location, or cannot be read.
    """
    if directory is not None:
        final = check_directory(directory, apart, replaced=False)
        try:
            used = final.exists() and any(final.iterdir())
        except OSError as error:
            raise OutputError(f"the dump directory cannot be read: {error.strerror}", where=str(directory)) from error
        if used:
            raise OutputError("the dump directory is not empty", where=str(directory), remedy="give a new directory")
    token = _directory.set(directory)
    try:
        yield
    finally:
        _directory.reset(token)


@contextmanager
def dumping_part(name: str) -> Generator[None]:
    """Context that writes dumps to a subdirectory of that name."""
    directory = _directory.get()
    token = _directory.set(None if directory is None else directory / name)
    try:
        yield
    finally:
        _directory.reset(token)


def dump(stage: str, text: Callable[[], str]) -> None:
    """Write the text of a stage, numbered after earlier stages.

    Args:
        text: produces the text; called only if dumps are written.
    Raises:
        OutputError: the text cannot be written.
    """
    directory = _directory.get()
    if directory is None:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        number = len(list(directory.iterdir()))
        (directory / f"{number:02} {stage}.txt").write_text(text(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"a dump cannot be written: {error.strerror}", where=str(directory)) from error
