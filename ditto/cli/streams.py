"""stdout and stderr: what a command prints arrives whole, or that it does not is an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from ditto.errors import OutputError


class _Stream:
    """A stream that writes what its encoding lacks as `\\x..`, as Python's own stderr does.

    Args:
        inner: the stream.
        needed: whether what does not arrive is an error; else it is left out, and the work goes on.
    Raises:
        OutputError: it does not.
        BrokenPipeError: nobody reads any longer.
    """

    def __init__(self, inner: Any, needed: bool) -> None:
        self._inner, self._needed = inner, needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, text: str) -> int:
        """Write a text."""
        encoding = getattr(self._inner, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        with self._checked():
            self._inner.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._checked():
            self._inner.flush()

    @contextmanager
    def _checked(self) -> Generator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            _to_nowhere(self._inner)
            if not self._needed:
                return
            if isinstance(error, BrokenPipeError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"stdout cannot be written: {reason}", remedy="send it elsewhere") from error


@contextmanager
def optional_stderr() -> Generator[None]:
    """Inside, what stderr does not take is left out."""
    for name in ("stdin", "stderr"):
        if getattr(sys, name) is None:  # else the next file to be opened would be in its place
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    with redirect_stderr(_Stream(sys.stderr, needed=False)):
        yield


@contextmanager
def checked_stdout() -> Generator[None]:
    """Inside, what is written to stdout must arrive.

    Raises:
        OutputError: stdout is closed, or does not take what is written.
        BrokenPipeError: nobody reads it any longer.
    """
    if sys.stdout is None:
        raise OutputError("stdout is closed", remedy="send it to a file, or to /dev/null")
    with redirect_stdout(_Stream(sys.stdout, needed=True)) as out:
        try:
            yield
        except SystemExit:  # of argparse, after it has printed
            out.flush()
            raise
        out.flush()


def _to_nowhere(stream: Any) -> None:
    """Let a stream's file be none: Python flushes it once more at its end, which would fail once more."""
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
