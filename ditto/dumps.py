"""Texts of a build's inner stages, for whoever wants to read or compare them: one file after each stage."""

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
    """Write what is dumped inside into a new or empty folder; None: nowhere.

    Args:
        folder: it is made when the first text is written.
        apart: other folders that are used meanwhile, by what they are.
    Raises:
        OutputError: the folder holds something, lies where it may not, or cannot be made.
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
    """Dump into a folder of that name inside."""
    folder = _folder.get()
    token = _folder.set(None if folder is None else folder / name)
    try:
        yield
    finally:
        _folder.reset(token)


def dump(stage: str, text: Callable[[], str]) -> None:
    """Write a text after the ones of earlier stages. It is made only if somebody wants it.

    Raises:
        OutputError: it cannot be written.
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
