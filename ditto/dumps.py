"""Texts of a build's inner stages, for whoever wants to read or compare them: one file after each stage."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ditto.errors import OutputError

_folder: ContextVar[Path | None] = ContextVar("ditto_dumps", default=None)


@contextmanager
def dumping(folder: Path | None) -> Generator[None]:
    """Write what is dumped inside into a new or empty folder; None: nowhere.

    Raises:
        OutputError: the folder holds something, or cannot be made.
    """
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            used = any(folder.iterdir())
        except OSError as error:
            raise OutputError(f"the dump folder cannot be made: {error.strerror}", where=str(folder)) from error
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
        folder.mkdir(exist_ok=True)
        number = len(list(folder.iterdir()))
        (folder / f"{number:02} {stage}.txt").write_text(text(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"a dump cannot be written: {error.strerror}", where=str(folder)) from error
